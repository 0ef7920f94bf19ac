"""Splits the lines of a text table into rows, also where quotation marks are damaged.

A quoted cell may hold separators, doubled quotation marks and line breaks. A quotation mark that is never closed, or
that another stray one closes many rows later, would make those rows part of one cell. So a cell over several lines is
accepted only when its closing mark ends the cell, the row has the right number of cells, and none of the lines looks
like a row. Otherwise only its first line is faulty, and the next line is read as a row.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from gapless.core.errors import DataRefused

MAX_CELL = 16 * 1024 * 1024
MAX_LINE = 4 * MAX_CELL
_REMEDY = "close it, or write it twice inside a quoted cell"
_NEVER_CLOSED = f"a quotation mark opens a cell here and is never closed; {_REMEDY}"
_WORD = re.compile(r"[^\W_]+")
_MIN_CHECKSUM = 6
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{2,5}$")


class LineSource:
    """The lines of a file with their ends, numbered from 1; lines that were read can be returned, to be read again."""

    def __init__(self, read_line: Callable[[int], str], name: str) -> None:
        self._read_line = read_line
        self._name = name
        self._returned: deque[str] = deque()
        self.number = 0
        self.total = 0

    def take(self) -> str | None:
        """The next line, None at the end. Raises DataRefused for a line that is no line of text."""
        if self._returned:
            self.number += 1
            return self._returned.popleft()
        line = self._read_line(MAX_LINE)
        if not line:
            return None
        self.number += 1
        self.total += 1
        if len(line) >= MAX_LINE:
            raise DataRefused(f"{self._name}:{self.number} has over {MAX_LINE} characters: it is no line of a table")
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        """Return lines that were read last, in their order, to be read again."""
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)


class Record(NamedTuple):
    """One row: the number of its first line, its cells or a fault, and how many lines it takes."""

    number: int
    cells: list[str]
    fault: str = ""
    num_lines: int = 1


class RecordReader:
    """Splits lines into rows.

    Args:
        lines: where they come from.
        separator: one character.
    """

    def __init__(self, lines: LineSource, separator: str) -> None:
        csv.field_size_limit(MAX_CELL)
        self.lines = lines
        self.separator = separator
        # Most tab-separated tables do not quote cells, so a quotation mark may be an ordinary character in them.
        self.quotes_are_optional = separator == "\t"
        self.fits: Callable[[Sequence[str]], bool] = lambda cells: True

    def __iter__(self) -> Iterator[Record]:
        while (line := self.lines.take()) is not None:
            yield self._record(line)

    def _record(self, line: str) -> Record:
        number = self.lines.number
        if '"' not in line:
            cells = self._plain_cells(line)
            if len(line) > MAX_CELL and max(map(len, cells)) > MAX_CELL:
                return Record(number, [], f"a cell has more than {MAX_CELL} characters")
            return Record(number, cells)
        used = [line]
        try:
            cells = next(csv.reader(self._following(used), delimiter=self.separator, strict=True))
            problem = self._find_problem(used, cells, number) if len(used) > 1 else ""
            stays_open = len(used) > 1
        except csv.Error as error:
            problem = _describe_error(error, len(used), number)
            stays_open = len(used) > 1 or problem == _NEVER_CLOSED
        if not problem:
            return Record(number, cells, num_lines=len(used))
        self.lines.give_back(used[1:])
        literal = self._plain_cells(line)
        if self.fits(literal) and self._is_literal(used, stays_open):
            return Record(number, literal)
        return Record(number, [], problem)

    def _following(self, used: list[str]) -> Iterator[str]:
        """The lines that the parser reads for one row; each is appended to `used`."""
        yield used[0]
        while (line := self.lines.take()) is not None:
            used.append(line)
            yield line

    def _plain_cells(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self.separator)

    def _find_problem(self, used: Sequence[str], cells: Sequence[str], number: int) -> str:
        """Why a row over several lines is not accepted; "" when it is."""
        opens = f"a quotation mark opens a cell here and closes in line {number + len(used) - 1}"
        if not self.fits(cells):
            return f"{opens}, but these lines make {len(cells)} cells; {_REMEDY}"
        if _looks_swallowed(used, cells, self.separator, self.fits):
            return f"{opens}, over lines that look like rows of their own; {_REMEDY}"
        return ""

    def _is_literal(self, used: Sequence[str], stays_open: bool) -> bool:
        """Whether the quotation marks of the first line are ordinary characters, as in `"Clear" lungs`.

        A line with an open mark could also be the beginning of a longer cell. It is read literally only in a
        tab-separated table whose next line is a complete row.
        """
        if not stays_open:
            return self.quotes_are_optional or used[0].count('"') % 2 == 0
        if not self.quotes_are_optional:
            return False
        return len(used) == 1 or not used[1].strip() or self.fits(self._plain_cells(used[1]))


def _describe_error(error: csv.Error, num_lines: int, number: int) -> str:
    reason = str(error)
    if "limit" in reason:
        return f"a cell has more than {MAX_CELL} characters; where a quotation mark stays open: {_REMEDY}"
    if "unexpected end" in reason:
        return _NEVER_CLOSED
    if num_lines == 1:
        return f"a quotation mark closes a cell, and more text follows; {_REMEDY}"
    last = number + num_lines - 1
    return f"a quotation mark opens a cell here, and the next one, in line {last}, does not close it; {_REMEDY}"


def _looks_swallowed(
    lines: Sequence[str], cells: Sequence[str], separator: str, fits: Callable[[Sequence[str]], bool]
) -> bool:
    """Whether a row over several lines has swallowed other rows.

    The cells beside the long one (a file's name, an id) are compared with the parts of each line at their position:
    after `img/3.png`, a line that begins with `img/7.png` is another row, and `Heart normal` is not.

    Args:
        lines: all the lines of the row.
        cells: its cells as they were parsed.
        separator: one character.
        fits: whether a number of cells makes a row.
    """
    long = [index for index, cell in enumerate(cells) if "\n" in cell or "\r" in cell]
    before, after = cells[: long[0]], cells[long[-1] + 1 :]
    for place, line in enumerate(lines):
        parts = line.rstrip("\r\n").split(separator)
        if len(parts) < 2:
            continue
        # The first line begins with the row's own cells, and the last one ends with them.
        pairs = list(zip(before, parts, strict=False)) if place > 0 else []
        if place < len(lines) - 1:
            pairs += zip(reversed(after), reversed(parts), strict=False)
        if any(_are_names_of_one_kind(own, part.strip('"')) for own, part in pairs):
            return True
        at_long = parts[long[0]] if long[0] < len(parts) else ""
        same_spacing = at_long[:1].isspace() == cells[long[0]][:1].isspace()
        alike = [_shape(own) == _shape(part) for own, part in pairs]
        is_number_alike = any(
            same and any(c.isdigit() for c in own) for same, (own, _) in zip(alike, pairs, strict=True)
        )
        if pairs and fits(parts) and same_spacing and (all(alike) or is_number_alike):
            return True
    return False


def _are_names_of_one_kind(own: str, other: str) -> bool:
    """Whether two cells are names of one pattern, no words: `img/3.png` and `img/12.png`, P001 and P017, two UUIDs."""
    if not own or not other or any(c.isspace() for c in own + other):
        return False
    suffix = _SUFFIX.search(own)
    if suffix is not None and other.lower().endswith(suffix.group().lower()) and not other.endswith("."):
        return True
    shape = _shape(own)
    if shape == "w":  # P001 or a checksum; "T2" at the beginning of a line of a report is neither
        letters = own.rstrip("0123456789")
        return (len(own) == len(other) >= _MIN_CHECKSUM and _shape(other) in "w9a") or (
            letters.isalpha() and other.startswith(letters) and other[len(letters) :].isdigit()
        )
    same_marks = _WORD.sub("a", own) == _WORD.sub("a", other)
    return len(set(shape)) > 1 and same_marks and (shape == _shape(other) or len(own) == len(other))


def _shape(text: str) -> str:
    """A text with every word as one letter: a for letters, 9 for digits, w for both; marks and spaces stay."""
    return _WORD.sub(lambda word: _class_of(word.group()), text)


def _class_of(word: str) -> str:
    return "9" if word.isdigit() else "a" if word.isalpha() else "w"
