"""The statistics of one field of a table, and a cell as numbers by them.

A field is a mapping that JSON holds: `{"kind": "number", "quantiles": [...]}`, `{"kind": "category", "categories":
[...]}`, or `{"kind": "absent"}` for a field that no training row has.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import DataRefused
from gapless.core.values import name_of, text_of

Cell = float | str | None


def cell_of(name: str, value: Any, as_category: bool = False) -> Cell:
    """A value as a number, a text, or None where it is absent; a text that is a number counts as one.

    Args:
        name: of the field, for messages.
        value: a number, a text, a truth value (a text then) or None.
        as_category: whether numbers are names, and so texts.

    Raises:
        DataRefused: NaN, an infinity, a list or a mapping.

    >>> [cell_of("hb", value) for value in (11, " 11.2 ", "M", "", None)]
    [11.0, 11.2, 'm', None, None]
    """
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_):
        try:
            number = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            number = math.inf
        if not math.isfinite(number):
            raise DataRefused(f"the field {name!r} holds {number}, which is no number; leave an absent value empty")
        return _category(name_of(value)) if as_category else number
    if isinstance(value, Mapping | list | tuple | np.ndarray | bytes):
        raise DataRefused(f"the field {name!r} holds a {type(value).__name__}; a field is one number or text")
    text = text_of(value)
    if not text:
        return None
    return _category(name_of(text)) if as_category else _number(name, text)


def _number(name: str, text: str) -> Cell:
    """A text as a number, or as the name of a category where it is none."""
    try:
        number = float(text)
    except ValueError:
        return _category(text)
    if "_" in text:  # Python reads 1_000 as a number; nobody else does
        return _category(text)
    if not math.isfinite(number):
        raise DataRefused(f"the field {name!r} holds {text!r:.20}, which is no number; leave an absent value empty")
    return number


def _category(text: str) -> str:
    return text.casefold()


def fit_field(
    name: str,
    cells: Sequence[Cell],
    *,
    as_category: bool = False,
    quantiles: int = 100,
    max_categories: int = 32,
    min_rows: int = 5,
) -> dict[str, Any]:
    """The statistics of a field over training rows.

    Args:
        name: of the field, for messages.
        cells: one a row, from `cell_of`.
        as_category: whether the field is one of categories although its values may be numbers.
        quantiles: how many steps the percentiles have.
        max_categories: how many are kept, the most frequent ones.
        min_rows: rows that a category needs to be kept; no rarer text is stored with a model.

    Raises:
        DataRefused: numbers and texts in one field.
    """
    present = [cell for cell in cells if cell is not None]
    if not present:
        return {"kind": "absent", "present": 0}
    texts = [cell for cell in present if isinstance(cell, str)]
    if texts and len(texts) < len(present) and not as_category:
        raise DataRefused(
            f"the field {name!r} holds {len(present) - len(texts)} numbers and {len(texts)} texts that are none; "
            f"empty these, or name the field among the categories"
        )
    if not texts:
        levels = np.linspace(0.0, 1.0, quantiles + 1)
        knots = np.quantile(np.array(present, dtype=np.float64), levels)
        return {"kind": "number", "quantiles": [float(knot) for knot in knots], "present": len(present)}
    counts = sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0]))
    kept = [text for text, count in counts if count >= min_rows][:max_categories]
    return {"kind": "category", "categories": sorted(kept), "present": len(present)}


def width(field: Mapping[str, Any]) -> int:
    """How many numbers `encode` gives for a field."""
    if field["kind"] == "category":
        return len(field["categories"]) + 2
    return 2 if field["kind"] == "number" else 1


def encode(name: str, cell: Cell, field: Mapping[str, Any]) -> NDArray[np.float32]:
    """A cell by the statistics of its field, [width] fp32; the last number is the present bit.

    A number is its percentile in [0, 1], 0.5 where it is absent. A category is one bit of the known ones and then one
    for a rare or unknown one.

    Raises:
        DataRefused: a text in a field of numbers.
    """
    row = np.zeros(width(field), dtype=np.float32)
    row[-1] = cell is not None
    if field["kind"] == "number":
        if isinstance(cell, str):
            raise DataRefused(f"the field {name!r} is one of numbers, and holds a text that is none")
        row[0] = 0.5 if cell is None else percentile(cell, np.asarray(field["quantiles"], dtype=np.float64))
    elif field["kind"] == "category" and cell is not None:
        known = list(field["categories"])
        text = cell if isinstance(cell, str) else _category(name_of(cell))
        row[known.index(text) if text in known else len(known)] = 1.0
    return row


def percentile(value: float, quantiles: NDArray[np.float64]) -> float:
    """Where a number stands among sorted quantiles at even levels, in [0, 1].

    Between two quantiles it is interpolated; on equal quantiles it is the middle of their levels, so that a value that
    many rows share stands in the middle of them.

    >>> [percentile(value, np.array([0.0, 10.0, 10.0, 20.0])) for value in (-1.0, 5.0, 10.0, 20.0, 99.0)]
    [0.0, 0.16666666666666666, 0.5, 1.0, 1.0]
    """
    steps = len(quantiles) - 1
    first, last = (int(np.searchsorted(quantiles, value, side)) for side in ("left", "right"))
    if last > first:
        return (first + last - 1) / 2 / steps
    if first in (0, len(quantiles)):
        return float(first > 0)
    low, high = quantiles[first - 1], quantiles[first]
    return float((first - 1 + (value - low) / (high - low)) / steps)
