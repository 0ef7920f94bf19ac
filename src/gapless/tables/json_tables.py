"""Reads JSON lines and arrays of JSON objects row by row."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, one_line
from gapless.core.values import is_unicode
from gapless.tables.quoted_rows import LineSource
from gapless.tables.table_format import Line, LineCount, TextOptions
from gapless.tables.text_files import open_text

# Keys are collected from so many rows, because a row need not have every key.
JSON_HEAD = 1000
# Bytes of an array, which is parsed as a whole; more data must come as JSON lines.
MAX_ARRAY = 1 << 30


def json_columns(path: Path, options: TextOptions) -> list[str]:
    """The keys of the first 1,000 rows.

    Raises:
        DataRefused: there is no row.
    """
    names: dict[str, None] = {}
    first_fault = ""
    for number, (origin, cells, fault) in enumerate(json_lines(path, options, LineCount(path.name))):
        if number >= JSON_HEAD:
            break
        names.update(dict.fromkeys(cells or ()))
        first_fault = first_fault or (f"{origin}: {fault}" if fault else "")
    if not names:
        raise DataRefused(f"{path} holds no JSON object{f' ({first_fault})' if first_fault else ': it is empty'}")
    return list(names)


def json_lines(path: Path, options: TextOptions, count: LineCount) -> Iterator[Line]:
    """Every row with its origin (`rows.jsonl:7` is a line, `rows.json[7]` an item, from 1), or with what is wrong."""
    with open_text(path, options) as stream:
        lines = LineSource(stream.readline, path.name)
        skipped: list[str] = []
        first: str | None = ""
        while first is not None and not first.strip():
            first = lines.take()
            skipped.append(first or "")
        lines.give_back([line for line in skipped if line])
        if first is not None and _opens_array(first):
            yield from _array_rows(path, lines, options, count)
        else:
            yield from _line_rows(path, lines, options, count)
        count.check()


def _opens_array(line: str) -> bool:
    """Whether a file's first line begins an array that holds its rows: it goes on, or holds objects."""
    if not line.lstrip().startswith("["):
        return False
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return True
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _line_rows(path: Path, lines: LineSource, options: TextOptions, count: LineCount) -> Iterator[Line]:
    file = path.name
    while (line := lines.take()) is not None:
        if not line.strip():
            count.blank += 1
            continue
        count.rows += 1
        origin = f"{file}:{lines.number}"
        if not is_unicode(line):
            yield origin, None, options.not_decoded()
            continue
        try:
            cells = _parse(line)
        except ValueError as error:
            yield origin, None, one_line(error)
            continue
        yield _row(origin, cells, "\\u" in line)
    count.lines = lines.total


def _array_rows(path: Path, lines: LineSource, options: TextOptions, count: LineCount) -> Iterator[Line]:
    parts: list[str] = []
    size = 0
    while (line := lines.take()) is not None:
        parts.append(line)
        size += len(line)
        if size > MAX_ARRAY:
            raise DataRefused(f"{path} is a JSON array of more than {MAX_ARRAY} characters; write it as JSON lines")
    text = "".join(parts)
    if not is_unicode(text):
        raise DataRefused(f"{path} is {options.not_decoded()}")
    try:
        items = _parse(text)
    except ValueError as error:
        raise DataRefused(f"{path} begins as a JSON array and cannot be read as one ({one_line(error)})") from None
    count.lines = count.rows = len(items)
    has_escapes = "\\u" in text
    for number, item in enumerate(items, start=1):
        yield _row(f"{path.name}[{number}]", item, has_escapes)


def _parse(text: str) -> Any:
    """The value of a JSON text; ValueError with the fault where it is not valid."""
    try:
        if text.startswith("\ufeff"):  # as `json.loads` says it: the beginning of a file that was joined to another
            raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
        return _DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {one_line(error)}") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object with distinct keys; ValueError for a repeated key, of which Python would keep the last value."""
    cells = dict(pairs)
    if len(cells) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} stands in it more than once")
    return cells


_DECODER = json.JSONDecoder(object_pairs_hook=_object)  # one for all lines: `json.loads` would make one for each


def _row(origin: str, cells: Any, has_escapes: bool) -> Line:
    """A row of a text that is Unicode, in which only an escape (`\\ud83d`) can stand for half of a surrogate pair."""
    if not isinstance(cells, dict):
        return origin, None, "not a JSON object"
    if has_escapes and not is_unicode(json.dumps(cells, ensure_ascii=False)):
        return origin, None, "not UTF-8: it holds half of a surrogate pair"
    return origin, cells, ""
