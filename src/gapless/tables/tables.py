"""Reads table files row by row (CSV, TSV, JSON, Parquet) and interprets their cells; a broken row is skipped alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError
from gapless.core.values import text_of
from gapless.tables import arrow_tables
from gapless.tables.json_tables import json_columns, json_lines
from gapless.tables.table_format import DETECT, Cells, Line, LineCount, TextOptions
from gapless.tables.text_files import PARQUET, describe_other_kind, first_bytes
from gapless.tables.text_tables import text_columns, text_lines

TEXT, JSON, ARROW = "text", "JSON", "Parquet"
_FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".tab"), TEXT),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), JSON),
    ".parquet": ARROW,
}
MAX_PATH = 1024


def read_lines(path: Path, options: TextOptions = DETECT, count: LineCount | None = None) -> Iterator[Line]:
    """Every row of a table file with its origin; a row that cannot be parsed comes with the fault instead of cells.

    Args:
        path: the file; gzip is unpacked.
        options: of tables of text.
        count: where the lines of the file are counted.

    Raises:
        UsageError: no table format, or two columns of one name.
        DataRefused: a file that is damaged as a whole.
    """
    count = LineCount(path.name) if count is None else count
    kind = _format_of(path)
    if kind == ARROW:
        return arrow_tables.arrow_lines(path, count)
    return json_lines(path, options, count) if kind == JSON else text_lines(path, options, count)


def check_columns(path: Path, names: Sequence[str], options: TextOptions = DETECT, image: str | None = None) -> None:
    """Refuse a table that lacks a named column, or whose column has a type that cannot be read, before any row is read.

    Args:
        path: the file.
        names: every column that must exist.
        options: of tables of text.
        image: the one of `names` that may hold images as bytes.

    Raises:
        UsageError: naming the column and those that exist.
        DataRefused: an empty or damaged file.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    columns = columns_of(path, options)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UsageError(f"{path} has the column {twice[0]!r} more than once; rename one")
    for key in names:
        if key not in columns:
            raise UsageError(f"{path} has no column {key!r}; it has {_listed(columns)}{_hint(path, key, columns)}")
    if _format_of(path) == ARROW:
        arrow_tables.check_types(path, names, image)


def columns_of(path: Path, options: TextOptions = DETECT) -> list[str]:
    """The names of a table's columns (of JSON: the keys of its first 1,000 rows)."""
    kind = _format_of(path)
    if kind == ARROW:
        return arrow_tables.arrow_columns(path)
    return json_columns(path, options) if kind == JSON else text_columns(path, options)


def holds_bytes(path: Path, image_key: str) -> bool:
    """Whether a column may hold images as bytes, rather than their paths."""
    return _format_of(path) == ARROW and arrow_tables.holds_bytes(path, image_key)


def _format_of(path: Path) -> str:
    """The format of a table file by its suffix without `.gz`; Parquet is recognised by its first bytes."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in _FORMATS:
        if kind := describe_other_kind(path):
            raise UsageError(f"{path} is {kind}")
        raise UsageError(f"{path}: {suffix or 'no suffix'} is no table format; known: {', '.join(_FORMATS)}")
    return ARROW if first_bytes(path).startswith(PARQUET) else _FORMATS[suffix]


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr(name[:80]) for name in columns[:50]) + (", ..." if len(columns) > 50 else "")


def _hint(path: Path, key: str, columns: Sequence[str]) -> str:
    """A hint for the message about a missing column: what may be wrong with the header."""
    if columns and columns[0].startswith(("{", "[")):
        return "; it looks like JSON: name it .jsonl or .json"
    if any(key in name for name in columns) and _format_of(path) == TEXT:
        return "; if another character stands between the cells, name it by --separator"
    return ""


# ---- cells ----------------------------------------------------------------------------------------------------------


def image_cell(value: Any, origin: str) -> tuple[bytes | None, str]:
    """(bytes, name) of an image cell: a path, bytes, the {bytes, path} of Hugging Face datasets, or a list of one.

    Returns:
        The bytes and what they are called (their path or `origin`), or None and the path; ("" where there is neither).

    Raises:
        ValueError: a list of several, or a mapping of something else.

    >>> image_cell("a.png", "rows.csv:2"), image_cell({"bytes": b"GIF8", "path": "a.gif"}, "rows.parquet:1")
    ((None, 'a.png'), (None, 'a.gif'))
    """
    if isinstance(value, str):
        return None, text_of(value)
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise ValueError(f"{len(value)} images in one cell; give each a row of its own")
        return image_cell(value[0] if value else None, origin)
    if isinstance(value, Mapping):
        content, name = value.get("bytes"), text_of(value.get("path"))
        if not value.keys() & {"bytes", "path"} or isinstance(content, str):
            raise ValueError(f"expected {{bytes, path}} of an image, got {', '.join(map(repr, list(value)[:5]))}")
        content, of_bytes = image_cell(content, name or origin) if content else (None, "")
        return (content, name or of_bytes) if content is not None else (None, name or of_bytes)
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        path = _path_in(content)
        return (None, path) if path is not None else (content, origin)
    return None, text_of(value)


def _path_in(content: bytes) -> str | None:
    """The path in a cell of bytes, as writers without a text type store it; None for the bytes of an image."""
    if len(content) > MAX_PATH:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text.strip() if text.strip().isprintable() else None


def texts_of(value: Any) -> list[str]:
    """A cell as texts: the items of a list, otherwise the one value; "" for a missing one.

    Raises:
        ValueError: a mapping, or bytes that are not UTF-8.

    >>> texts_of(["left", "lung"]), texts_of(7), texts_of(None)
    (['left', 'lung'], ['7'], [''])
    """
    if type(value) is str:  # numpy's texts, which are `str` too, lose NULs at their end in `tolist`
        return [text_of(value)]
    items = value.tolist() if hasattr(value, "tolist") else value
    return [text_of(item) for item in items] if isinstance(items, list | tuple) else [text_of(items)]


def find_cell_fault(cells: Cells, keys: Sequence[str]) -> str:
    """The first of some columns whose cell is no text, with what is wrong; "" when all are."""
    for key in keys:
        try:
            texts_of(cells.get(key))
        except ValueError as error:
            return f"column {key!r}: {error}"
    return ""
