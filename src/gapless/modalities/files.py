"""What the kinds that read files share: which query a user may give them."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gapless.core.errors import UsageError


def path_or_bytes(value: Any, what: str) -> Path | bytes | None:
    """A path or the bytes of a file, as a source; None for anything else.

    Args:
        what: whose path it is, for messages.

    Raises:
        UsageError: a path that names no file.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str | PathLike):
        if "\0" in str(value) or not str(value).strip():
            raise UsageError(f"the path of {what} names no file: {str(value)!r:.60}")
        return Path(value)
    return None


def file_query(value: Any, what: str) -> Any:
    """A path, the bytes of a file, or numbers, as a source.

    Args:
        value: what the user gives; an array, a list of numbers, or a list of such lists of one length.
        what: the kind with its article, for messages.

    Raises:
        UsageError: anything else.
    """
    source = path_or_bytes(value, what)
    if source is not None:
        return source
    numbers = _array_of(value) if isinstance(value, list) else value
    if isinstance(numbers, np.ndarray) and numbers.size and numbers.dtype.kind in "fiu":
        return numbers
    raise UsageError(f"{what} is a path, the bytes of a file or an array of numbers, got {_named(value)}")


def _array_of(values: list[Any]) -> Any:
    """A list as an array; None where its lists have several lengths, or a number is too large."""
    try:
        return np.asarray(values)
    except (ValueError, OverflowError):
        return None


def _named(value: Any) -> str:
    return "a list that is no array of numbers" if isinstance(value, list) else type(value).__name__
