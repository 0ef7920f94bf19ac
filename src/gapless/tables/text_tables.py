"""Reads CSV and TSV files row by row, in any usual separator and encoding, and counts every line."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import is_unicode
from gapless.tables.quoted_rows import LineSource, Record, RecordReader
from gapless.tables.table_format import Line, LineCount, TextOptions
from gapless.tables.text_files import open_text

logger = logging.getLogger(__name__)

# Separators to try when the one that the file's suffix implies splits the header into a single column.
_CANDIDATES = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)
# Invisible characters around a name, from copied or joined files, that `str.strip` leaves.
_INVISIBLE = "\ufeff\u200b"


@dataclass
class _Table:
    """An open table: the names of its columns, and its rows."""

    names: list[str]
    records: RecordReader
    options: TextOptions
    num_named: int  # columns up to the last one with a name

    def fits(self, cells: Sequence[str]) -> bool:
        """Whether a row has every named column; cells beyond them must be empty, as spreadsheets write them."""
        return len(cells) >= self.num_named and not any(cell.strip() for cell in cells[self.num_named :])


def text_columns(path: Path, options: TextOptions) -> list[str]:
    """The names of the columns; those without a name are left out."""
    with _open_table(path, options, LineCount(path.name)) as table:
        return [name for name in table.names if name]


def text_lines(path: Path, options: TextOptions, count: LineCount) -> Iterator[Line]:
    """Every row with its origin, or with what is wrong; blank rows are counted only."""
    num_undecodable = 0
    with _open_table(path, options, count) as table:
        names = table.names[: table.num_named]
        file = path.name
        for record in table.records:
            if not record.fault and _is_blank(record.cells):
                count.blank += record.num_lines
                continue
            count.rows += 1
            count.continued += record.num_lines - 1
            fault = record.fault or _find_fault(record, table)
            num_undecodable += fault == table.options.not_decoded()
            origin = f"{file}:{record.number}"
            # A column without a name holds row numbers, or nothing.
            cells = {name: cell for name, cell in zip(names, record.cells, strict=False) if name}
            yield (origin, None, fault) if fault else (origin, cells, "")
        count.lines = table.records.lines.total
        count.check()
    if num_undecodable:
        logger.warning("%s: %d rows are %s", path, num_undecodable, options.not_decoded())


@contextmanager
def _open_table(path: Path, options: TextOptions, count: LineCount) -> Iterator[_Table]:
    with open_text(path, options) as stream:
        lines = LineSource(stream.readline, path.name)
        head, announced = _header_line(lines, count, path)
        separator = options.separator_character() or announced or _separator_of(head, path)
        lines.give_back([head])
        records = RecordReader(lines, separator)
        header = next(iter(records))
        _check_header(path, header, options, separator)
        count.header += header.num_lines
        names = [name.strip().strip(_INVISIBLE).strip() for name in header.cells]
        num_named = max((index + 1 for index, name in enumerate(names) if name), default=0)
        table = _Table(names, records, options, num_named)
        records.fits = table.fits
        yield table


def _header_line(lines: LineSource, count: LineCount, path: Path) -> tuple[str, str | None]:
    """The first line with content, and the separator that Excel's line `sep=;` before it announces."""
    announced = None
    while (line := lines.take()) is not None:
        if match := _SEPARATOR_LINE.fullmatch(line.strip(_INVISIBLE)):
            announced = match.group(1)
            count.header += 1
        elif line.strip(f'{"".join(_CANDIDATES)}" \t\r\n{_INVISIBLE}'):
            return line, announced
        else:
            count.blank += 1
    raise DataRefused(f"{path} is empty: it has no line with the names of the columns")


def _separator_of(head: str, path: Path) -> str:
    """The separator of a header: the one that the file's suffix implies, if the header has it."""
    usual = "\t" if ".tsv" in path.suffixes[-2:] or ".tab" in path.suffixes[-2:] else ","
    if usual in head:
        return usual
    return max((usual, *_CANDIDATES), key=head.count)


def _check_header(path: Path, header: Record, options: TextOptions, separator: str) -> None:
    if header.fault:
        raise DataRefused(f"{path}: the header, in line {header.number}: {header.fault}")
    if any(separator in cell for cell in header.cells if "\n" in cell or "\r" in cell):
        last = header.number + header.num_lines - 1
        raise DataRefused(
            f"{path}: a quotation mark of the header, in line {header.number}, closes in line {last}, over lines that "
            f"may be rows; close it, or write each column's name on one line"
        )
    if not is_unicode("".join(header.cells)):
        raise UsageError(f"{path}: the header, in line {header.number}, is {options.not_decoded()}")
    names = [name.strip() for name in header.cells if name.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path} has the column {twice[0]!r} more than once; rename one")


def _is_blank(cells: Sequence[str]) -> bool:
    return not any(cell.strip() for cell in cells)


def _find_fault(record: Record, table: _Table) -> str:
    text = "".join(record.cells)
    if not is_unicode(text):
        return table.options.not_decoded()
    if "\0" in text:
        return "it holds a NUL byte, as after a crash: the line is damaged"
    if not table.fits(record.cells):
        return f"{len(record.cells)} cells under {table.num_named} columns"
    return ""
