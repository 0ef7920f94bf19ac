"""Reads files of one value per row: `--groups patients.txt`, `--labels classes.npy`."""

import re
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import is_unicode
from gapless.embeddings.array_files import SUFFIXES, read_columns
from gapless.tables.text_files import open_text

LINE_END = re.compile(r"\r\n|\n|\r")  # the line ends of editors; U+2028, NEL and form feeds are part of a value
TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".json", ".jsonl")


def read_row_values(path: Path, what: str, num_rows: int) -> list[Any]:
    """One cell per row: the lines of a text file, or the one-dimensional array of an array file.

    Args:
        what: "groups", "labels" or "positives", for messages and as the name of an array among several.

    Raises:
        UsageError: no such file, a table, a file of another kind (a workbook, a zip archive, ...).
        DataRefused: another number of values than rows, text that cannot be decoded, an array of another shape.
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
    lines = LINE_END.split(_text(path))
    if lines[-1] == "":
        lines.pop()
    while len(lines) > num_rows and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in the encoding that its byte order mark says.

    Raises:
        DataRefused: bytes that are not of the encoding, or NUL bytes.
    """
    with open_text(path) as stream:
        text = stream.read()
    if not is_unicode(text):
        place = next(number for number, character in enumerate(text) if not is_unicode(character))
        raise DataRefused(
            f"{path} is not UTF-8 text, but probably Windows-1252 or Latin-1 (byte 0x{ord(text[place]) - 0xDC00:02x} "
            f"in line {text.count(chr(10), 0, place) + 1}); save it as UTF-8"
        )
    if "\0" in text:
        raise DataRefused(f"{path} holds NUL bytes, so that it is no text; save it as UTF-8")
    return text
