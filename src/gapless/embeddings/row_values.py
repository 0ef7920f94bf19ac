"""Reads files of one value per row: `--groups patients.txt`, `--labels classes.npy`."""

import codecs
import re
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.array_files import SUFFIXES, read_columns

LINE_END = re.compile(r"\r\n|\n|\r")  # the line ends of editors; U+2028, NEL and form feeds are part of a value
TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".json", ".jsonl")
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_row_values(path: Path, what: str, num_rows: int) -> list[Any]:
    """One cell per row: the lines of a text file, or the one-dimensional array of an array file.

    Args:
        what: "groups", "labels" or "positives", for messages and as the name of an array among several.

    Raises:
        UsageError: no such file, a table.
        DataRefused: another number of values than rows, text that is not UTF-8, an array of another shape.
    """
    if path.suffix.lower() in SUFFIXES:
        values = _array_values(path, what)
    elif not path.is_file():
        raise UsageError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    elif path.suffix.lower() in TABLES:
        raise UsageError(f"{path} is a table; {what} are a text file of one value per line, without a heading")
    else:
        values = _lines(path, num_rows)
    if len(values) != num_rows:
        heading = f"; if the first line ({values[0]!r}) is a heading, remove it" if len(values) == num_rows + 1 else ""
        raise DataRefused(
            f"{path} has {len(values)} {what}, the embeddings have {num_rows} rows; one line per row{heading}"
        )
    return values


def _array_values(path: Path, what: str) -> list[Any]:
    array_file = read_columns(path)
    columns = dict(array_file.columns)
    for name, matrix in array_file.matrices.items():
        if matrix.shape[1] == 1:
            columns[name] = matrix[:, 0].tolist()
    named = [name for name in (what, what.removesuffix("s")) if name in columns]
    if len(columns) != 1 and not named:
        names = ", ".join([*array_file.matrices, *array_file.columns]) or "nothing"
        raise DataRefused(f"{path}: expected one array of one value per row, or one named {what!r}, found {names}")
    return columns[named[0]] if named else next(iter(columns.values()))


def _lines(path: Path, num_rows: int) -> list[str]:
    """Lines without their ends; empty lines after the last row are left out."""
    lines = LINE_END.split(decoded(path))
    if lines[-1] == "":
        lines.pop()
    while len(lines) > num_rows and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def decoded(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        DataRefused: another encoding, or a compressed file, each by its name.
    """
    content = path.read_bytes()
    mark = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if mark is not None:
        raise DataRefused(f"{path} is {mark} text; save it as UTF-8")
    if content.startswith(b"\x1f\x8b"):
        raise DataRefused(f"{path} is compressed with gzip; unpack it first (gunzip)")
    if content.startswith(b"PK\x03\x04"):
        raise DataRefused(f"{path} is a zip archive or a spreadsheet; save a text file of one value per line")
    if b"\0" in content:
        raise DataRefused(
            f"{path} holds NUL bytes: it is UTF-16 without a byte order mark, or no text; save it as UTF-8"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataRefused(
            f"{path} is not UTF-8 text, but probably Windows-1252 or Latin-1 (byte 0x{content[error.start]:02x} "
            f"in line {line}); save it as UTF-8"
        ) from None
