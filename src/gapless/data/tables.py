"""Files of tables, row by row: CSV, TSV, JSONL and Parquet, where a broken row costs only itself."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapless.errors import DataRefused, UsageError

# How far a column may first appear in a JSONL file, where rows need not have every key.
JSONL_HEAD = 1000
MAX_CELL = 16 * 1024 * 1024

Cells = Mapping[str, Any]
Line = tuple[str, Cells | None, str]  # origin, cells, what is wrong when there are none


def read_lines(path: Path) -> Iterator[Line]:
    """Every row of a table file with its origin; a row that cannot be parsed comes with the fault instead of cells."""
    return _reader(path)(path)


def check_columns(path: Path, names: Sequence[str]) -> None:
    """Refuse a table that lacks a named column, before any row is read.

    Raises:
        UsageError: naming the column and those that exist.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    columns = columns_of(path)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UsageError(f"{path} has the column {twice[0]!r} more than once; rename one")
    for key in names:
        if key not in columns:
            raise UsageError(f"{path} has no column {key!r}; it has {', '.join(map(repr, columns)) or 'none'}")


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns (of JSONL: the keys of its first 1,000 rows)."""
    if _reader(path) is _parquet_lines:
        return list(_parquet_file(path).schema_arrow.names)
    if _reader(path) is _jsonl_lines:
        names: dict[str, None] = {}
        for number, (_, cells, _) in enumerate(_jsonl_lines(path)):
            if number >= JSONL_HEAD:
                break
            names.update(dict.fromkeys(cells or ()))
        return list(names)
    with _open_text(path) as stream:
        return _header(csv.reader(stream, delimiter=_delimiter(path)))


def _reader(path: Path) -> Callable[[Path], Iterator[Line]]:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise UsageError(f"{path}: {suffix or 'no suffix'} is no table format; known: {', '.join(_READERS)}")
    return _READERS[suffix]


def _open_text(path: Path) -> Any:
    # Bytes that are not UTF-8 become lone surrogates, so that only their own row is lost.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _delimiter(path: Path) -> str:
    return "," if path.suffix.lower() == ".csv" else "\t"


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [name.strip() for name in next(reader, [])]


def _csv_lines(path: Path) -> Iterator[Line]:
    csv.field_size_limit(MAX_CELL)
    with _open_text(path) as stream:
        reader = csv.reader(stream, delimiter=_delimiter(path))
        header = _header(reader)
        while True:
            origin = f"{path.name}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield origin, None, str(error)
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield origin, None, f"{len(cells)} cells under {len(header)} columns"
            elif not _is_utf8("".join(cells)):
                yield origin, None, "not UTF-8"
            else:
                yield origin, dict(zip(header, cells, strict=True)), ""


def _jsonl_lines(path: Path) -> Iterator[Line]:
    with _open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            origin = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield origin, None, f"not JSON: {error}"[:200]
                continue
            if not isinstance(cells, dict):
                yield origin, None, "not a JSON object"
            elif not _is_utf8(line) or not _is_utf8(json.dumps(cells, ensure_ascii=False)):
                yield origin, None, "not UTF-8"
            else:
                yield origin, cells, ""


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataRefused(f"{path} is not a readable Parquet file ({str(error)[:200]})") from None


def _parquet_lines(path: Path) -> Iterator[Line]:
    number = 0
    # Small batches: a cell can be an image.
    for batch in _parquet_file(path).iter_batches(batch_size=64):
        for cells in batch.to_pylist():
            number += 1
            yield f"{path.name}:{number}", cells, ""


def holds_bytes(path: Path, image_key: str) -> bool:
    if _reader(path) is not _parquet_lines:
        return False
    import pyarrow as pa

    kind = _parquet_file(path).schema_arrow.field(image_key).type
    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


_READERS: dict[str, Callable[[Path], Iterator[Line]]] = {
    ".csv": _csv_lines,
    ".tsv": _csv_lines,
    ".jsonl": _jsonl_lines,
    ".parquet": _parquet_lines,
}


# ---- cells ----------------------------------------------------------------------------------------------------------


def image_cell(value: Any, origin: str) -> tuple[bytes | None, str]:
    """(bytes, name) of an image cell: a path, bytes, or the {bytes, path} of Hugging Face datasets."""
    if isinstance(value, Mapping):
        content, name = value.get("bytes"), text_of(value.get("path"))
        return (content, name or origin) if isinstance(content, bytes) else (None, name)
    if isinstance(value, bytes):
        return value, origin
    return None, text_of(value)


def text_of(value: Any) -> str:
    """A cell as text; nothing is empty text, so is what JSON calls null."""
    if value is None or isinstance(value, bytes | list | dict):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    return str(value).strip()


def texts_of(value: Any) -> list[str]:
    return [text_of(item) for item in value] if isinstance(value, list | tuple) else [text_of(value)]
