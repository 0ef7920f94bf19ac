"""Reads the cells of a source as the views of a modality: none (absent), one, or several.

A cell that is missing (empty, null, or a word for nothing such as "n/a") is absent. A number that is NaN or infinite
is refused, in a cell and inside a list: it is a fault of the program that wrote it, and reading it as absent would hide
that.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gapless.core.captions import normalised_caption
from gapless.core.values import is_missing, text_of
from gapless.manifest.clean_text import clean_captions
from gapless.manifest.modality_spec import CATEGORY, NUMBER, ModalitySpec, number_in
from gapless.manifest.raw_rows import ImageSource
from gapless.modalities.base import FIELDS, FILES, NUMBERS
from gapless.tables.tables import texts_of

INFINITE = ("inf", "infinity")  # how programs write an infinity, in any case and with any sign


class CellRefused(ValueError):
    """A cell that cannot be read; `reason` names the modality and is counted, `detail` says what is wrong."""

    def __init__(self, spec: ModalitySpec, reason: str, detail: str) -> None:
        self.reason = f"{spec.name}: {reason}"
        self.detail = detail[:200]
        super().__init__(f"{self.reason} ({self.detail})")


@dataclass(frozen=True)
class FileView:
    """One view that is a file.

    Args:
        source: where its bytes are.
        name: below the root of the manifest's files.
    """

    source: ImageSource
    name: str


# (cell, one item of a list or the only one) -> the file that it names; ValueError with what is wrong.
FindFile = Callable[[Any], FileView | None]


def views_of(spec: ModalitySpec, cells: Mapping[str, Any], find_file: FindFile) -> tuple[Any, ...]:
    """The views of a modality in a row; () where the row lacks it.

    Returns:
        `FileView`s, texts, tuples of numbers, or one mapping of a table's fields, by the form of the kind.

    Raises:
        CellRefused: a cell that holds something, and nothing of this kind.
    """
    if spec.form == FILES:
        return _files(spec, cells, find_file)
    if spec.form == NUMBERS:
        return _vectors(spec, cells)
    if spec.form == FIELDS:
        values = field_values(spec, cells)
        typed = {name: _typed(spec, name, values.get(name), kind) for name, kind in spec.fields.items()}
        return (typed,) if any(value is not None for value in typed.values()) else ()
    return _texts(spec, cells)


def _files(spec: ModalitySpec, cells: Mapping[str, Any], find_file: FindFile) -> tuple[FileView, ...]:
    views: list[FileView] = []
    for column in spec.columns:
        cell = cells.get(column)
        for item in cell if isinstance(cell, list | tuple) else [cell]:
            _refuse_nan(spec, column, item)
            if isinstance(item, list | tuple) or (isinstance(item, int | float) and not isinstance(item, bool)):
                what = "a list of numbers" if isinstance(item, list | tuple) else "a number"
                raise CellRefused(
                    spec,
                    "no file name",
                    f"column {column!r} holds {what}; numbers in the table itself are of the kind vector",
                )
            try:
                view = find_file(item)
            except CellRefused:
                raise
            except ValueError as error:
                raise CellRefused(spec, "no file name", f"column {column!r}: {error}") from None
            if view is not None:
                views.append(view)
    return tuple(views)


def _texts(spec: ModalitySpec, cells: Mapping[str, Any]) -> tuple[str, ...]:
    texts: list[str] = []
    for column in spec.columns:
        cell = cells.get(column)
        for item in cell if isinstance(cell, list | tuple) else [cell]:
            _refuse_nan(spec, column, item)
        try:
            texts += texts_of(cell)
        except ValueError as error:
            raise CellRefused(spec, "no text", f"column {column!r}: {error}") from None
    # A text of invisible characters or full stops says nothing, so it is absent, as an empty one is.
    return tuple(text for text in clean_captions(texts) if normalised_caption(text))


def _vectors(spec: ModalitySpec, cells: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    if len(spec.columns) > 1:
        values = [cells.get(column) for column in spec.columns]
        for column, value in zip(spec.columns, values, strict=True):
            _refuse_nan(spec, column, value)
        missing = [column for column, value in zip(spec.columns, values, strict=True) if is_missing(value)]
        if len(missing) == len(values):
            return ()
        if missing:
            raise CellRefused(spec, "incomplete vector", f"column {missing[0]!r} is empty and others are not")
        return (_numbers(spec, ", ".join(spec.columns), values),)
    (column,) = spec.columns
    cell = cells.get(column)
    _refuse_nan(spec, column, cell)
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise CellRefused(spec, "no vector", f"column {column!r} begins with [ and is no list of numbers") from None
    if is_missing(cell):
        return ()
    if not isinstance(cell, list | tuple):
        cell = [cell] if isinstance(cell, int | float) else _words(spec, column, cell)
    if all(isinstance(item, list | tuple) for item in cell):
        return tuple(_numbers(spec, column, item) for item in cell if len(item))
    return (_numbers(spec, column, cell),)


def _words(spec: ModalitySpec, column: str, cell: Any) -> list[str]:
    """The numbers of a text cell, with spaces, commas or semicolons between them."""
    if not isinstance(cell, str):
        raise CellRefused(spec, "no vector", f"column {column!r} holds {type(cell).__name__}, not a list of numbers")
    return cell.replace(",", " ").replace(";", " ").split()


def _numbers(spec: ModalitySpec, column: str, items: Sequence[Any]) -> tuple[float, ...]:
    numbers = []
    for place, item in enumerate(items, 1):
        number = _finite(item)
        if number is None:
            is_null = item is None or (isinstance(item, str) and is_missing(item))
            shown = "null" if is_null else f"{item!s:.40}"
            raise CellRefused(spec, "not a finite number", f"column {column!r}: number {place} is {shown}")
        numbers.append(number)
    return tuple(numbers)


def _finite(item: Any) -> float | None:
    number = _number(item)
    return number if number is not None and math.isfinite(number) else None


def _number(item: Any) -> float | None:
    """A number or a text that is one, infinite ones too; None for anything else."""
    if isinstance(item, bool) or item is None:
        return None
    if isinstance(item, str):
        text = item.strip()
        item = math.inf if text.lower().lstrip("+-") in INFINITE else number_in(text)
    try:
        return float(item)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def field_values(spec: ModalitySpec, cells: Mapping[str, Any]) -> dict[str, Any]:
    """Field -> value of a table's cells as they stand: its columns, or the keys of one column of mappings.

    Numbers stay numbers, everything else is a text; None where it is missing.

    Raises:
        CellRefused: a list, a mapping, NaN, or bytes that are no text.
    """
    values = {column: cells.get(column) for column in spec.columns}
    if len(spec.columns) == 1:
        (cell,) = values.values()
        values = dict(cell) if isinstance(cell, Mapping) else values
    return {str(name): _field(spec, str(name), value) for name, value in values.items()}


def _field(spec: ModalitySpec, name: str, value: Any) -> Any:
    _refuse_nan(spec, name, value)
    if isinstance(value, list | tuple | Mapping):
        what = "a mapping" if isinstance(value, Mapping) else "a list"
        raise CellRefused(spec, "no single value", f"field {name!r} holds {what}; expected a number or a word")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return text_of(value) or None
    except ValueError as error:
        raise CellRefused(spec, "no single value", f"field {name!r}: {error}") from None


def is_number(value: Any) -> bool:
    """Whether a field's value is a number, or a text that is one.

    An infinity is a number too: its row is refused, and does not make words of all other values of the field.
    """
    return _number(value) is not None


def _typed(spec: ModalitySpec, name: str, value: Any, kind: str) -> float | str | None:
    if value is None:
        return None
    if kind == CATEGORY:
        return text_of(value)
    number = _finite(value)
    if kind == NUMBER and number is None:
        raise CellRefused(
            spec, "not a number", f"field {name!r} is {value!s:.40}; if it holds words, say categories={name}"
        )
    return number


def _refuse_nan(spec: ModalitySpec, column: str, value: Any) -> None:
    """Refuse a number that is NaN or infinite; NaN written as a word in a table of text is an empty cell."""
    if isinstance(value, str | bytes | bytearray | list | tuple | Mapping) or value is None:
        return
    try:
        is_finite = math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return
    if not is_finite:
        raise CellRefused(spec, "not a finite number", f"column {column!r} is {value}; leave the cell empty if absent")
