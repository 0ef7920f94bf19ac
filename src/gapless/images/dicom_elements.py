"""Reads DICOM elements that may be empty or malformed; an unreadable element is treated as absent.

De-identifying tools and scanners leave `RescaleSlope` empty, write "2048,0" for a number, or keep a sequence whose
item holds no table. The pixels of such a file are intact, so the image must still be read.
"""

import math
from collections.abc import Iterable
from typing import Any


def numbers(dataset: Any, name: str) -> list[float | None]:
    """The values of a numeric element in their order; None where one is empty, not a number or not finite.

    Returns:
        An empty list when the element is absent.
    """
    return [_number(value) for value in _values(dataset, name)]


def number(dataset: Any, name: str) -> float | None:
    """The first value of a numeric element, None when it is absent, empty or not a number."""
    return next(iter(numbers(dataset, name)), None)


def integer(dataset: Any, name: str) -> int | None:
    """The first value of an element that counts something; None also when it has a fraction."""
    value = number(dataset, name)
    return None if value is None or value != int(value) else int(value)


def text(dataset: Any, name: str) -> str:
    """The first value of a coded element in capitals, without its padding; "" when it is absent."""
    value = next(iter(_values(dataset, name)), None)
    return "" if value is None else _plain(value).upper()


def items(dataset: Any, name: str) -> list[Any]:
    """The items of a sequence; none when it is absent, empty or not a sequence."""
    return [item for item in _values(dataset, name) if hasattr(item, "get_item")]


def _values(dataset: Any, name: str) -> list[Any]:
    try:
        value = dataset.get(name)
    except Exception:  # pydicom's conversion fails as a whole, also when one of several values is malformed
        value = _undecoded(dataset, name)
    if value is None or (isinstance(value, str) and not value.strip(" \0")):
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable) or hasattr(value, "get_item"):
        return [value]
    return list(value)


def _undecoded(dataset: Any, name: str) -> Any:
    """The bytes of an element as text values, before any conversion."""
    from pydicom.datadict import tag_for_keyword

    raw = dataset.get_item(tag_for_keyword(name))
    content = getattr(raw, "value", None)
    return content.decode("latin-1").split("\\") if isinstance(content, bytes) else None


def _number(value: Any) -> float | None:
    try:
        number = float(_plain(value) if isinstance(value, (str, bytes)) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(value: Any) -> str:
    return (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip(" \0\t\r\n")
