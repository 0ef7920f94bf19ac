"""Reads the cells of tables, label files and arrays: one set of rules for every reader and file format.

`is_missing` tells an absent value from a present one, `text_of` gives a cell as text, `name_of` gives a
name (of a group, a class, a row) as text, so that one patient has the same name in every file format.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from gapless.core.errors import DataRefused

# pandas reads these as missing when it reads a CSV; a dash is what people type into an empty cell.
MISSING_TEXTS = frozenset(
    {
        *(
            "",
            "#N/A",
            "#N/A N/A",
            "#NA",
            "-1.#IND",
            "-1.#QNAN",
            "1.#IND",
            "1.#QNAN",
            "-NaN",
            "-nan",
            "NaN",
            "nan",
            "NAN",
        ),
        *("<NA>", "N/A", "n/a", "NA", "NULL", "null", "None", "NaT", "-", "--", "\u2013", "\u2014"),
    }
)
_WHOLE_FLOAT = re.compile(r"[+-]?(?:0|[1-9][0-9]*)\.0+")
LIST_SEPARATOR = "; "


def is_missing(value: Any) -> bool:
    """Whether a cell holds no value: None, NaN, NaT, pandas' NA, or a text of `MISSING_TEXTS` (spaces aside).

    A list, an array, a mapping and bytes are present unless they are empty.

    >>> [is_missing(value) for value in (None, float("nan"), " n/a ", "", 0, "no finding")]
    [True, True, True, True, False, False]
    """
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip() in MISSING_TEXTS
    if hasattr(value, "__len__"):  # bytes, a list, a mapping, an array
        return getattr(value, "shape", None) != () and len(value) == 0
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas' NA has no truth value
        return True


def text_of(value: Any) -> str:
    """A cell as text without outer spaces; "" where it is missing.

    Whole numbers have no decimals (1000.0 is "1000", as a column of numbers with a gap becomes floats); booleans are
    "true" and "false"; bytes are UTF-8; a list is its items joined by "; ".

    Raises:
        ValueError: bytes that are not UTF-8, or a mapping.

    >>> [text_of(value) for value in (1000.0, True, b"left", ["a", 2], None)]
    ['1000', 'true', 'left', 'a; 2', '']
    """
    if isinstance(value, str):
        text = value.strip()
        return "" if text in MISSING_TEXTS else text
    if is_missing(value):
        return ""
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value))
    if isinstance(value, dict):
        raise ValueError(f"expected one value in a cell, got a mapping with {', '.join(map(repr, list(value)[:5]))}")
    if hasattr(value, "tolist") and not isinstance(value, Real):
        return text_of(value.tolist())  # a numpy scalar or array
    if isinstance(value, Sequence):
        return LIST_SEPARATOR.join(text for item in value if (text := text_of(item)))
    return _scalar_text(value)


def is_unicode(text: str) -> bool:
    """Whether a text has no lone surrogates: halves of surrogate pairs, from broken encodings, which UTF-8 cannot hold.

    >>> is_unicode("naïve"), is_unicode(chr(0xDCFF))
    (True, False)
    """
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_of(value: Any) -> str:
    """The name of a group, a class or a row as text: `text_of`, and the text "1000.0" becomes "1000".

    Leading zeros stay: "007" and "7" are two names.

    >>> [name_of(value) for value in (1000.0, "1000.0", "007", None)]
    ['1000', '1000', '007', '']
    """
    text = text_of(value)
    return text.partition(".")[0] if text.endswith("0") and _WHOLE_FLOAT.fullmatch(text) else text


def _decoded(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"expected text, got {len(value)} bytes that are not UTF-8") from None
    return "" if is_missing(text) else text.strip()


def _scalar_text(value: Any) -> str:
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return str(bool(value)).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else str(value)
    if isinstance(value, Real):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else str(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ") if (value.hour, value.minute, value.second) != (0, 0, 0) else str(value.date())
    if isinstance(value, date):
        return value.isoformat()
    return str(value).strip()


def cells_of(column: Any) -> list[Any]:
    """A column of any library (a list, numpy, torch, pandas, Arrow) as Python values; masked ones are None.

    Raises:
        ValueError: a single value, or a matrix.
    """
    if hasattr(column, "to_pylist"):  # Arrow
        cells = column.to_pylist()
    elif hasattr(column, "tolist"):
        if len(getattr(column, "shape", (0,))) != 1:
            raise ValueError(f"expected one value per row, got shape {tuple(column.shape)}")
        if getattr(getattr(column, "dtype", None), "kind", "") == "M":  # in nanoseconds they would become integers
            column = column.astype("datetime64[us]")
        cells = column.tolist()
    else:
        cells = list(column)
    return list(cells)


def names_of(what: str, column: Any) -> list[str]:
    """The name in each cell of a column (`name_of`); "" where it is missing.

    Raises:
        DataRefused: cells that are lists, mappings, or bytes that are no text.

    >>> names_of("groups", [1.0, "1", None])
    ['1', '1', '']
    """
    names = []
    for row, cell in enumerate(cells_of(column)):
        kind = "a list" if isinstance(cell, list | tuple | set) else "a mapping" if isinstance(cell, dict) else None
        if kind is not None:
            raise DataRefused(f"{what}: row {row} holds {kind}; expected one value per row")
        try:
            names.append(name_of(cell))
        except ValueError as error:
            raise DataRefused(f"{what}: row {row}: {error}") from None
    return names


def refuse_missing(what: str, kind: str, names: Sequence[str]) -> None:
    """Raise DataRefused that counts the rows without a name and shows the first ten, when there are any.

    Rows without a group would otherwise become one large group.
    """
    missing = [row for row, name in enumerate(names) if not name]
    if missing:
        rows = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        raise DataRefused(
            f"{what}: {len(missing)} of {len(names)} rows have no {kind} (row {rows}); give each of them "
            f"one, its own where it belongs to no other row"
        )
