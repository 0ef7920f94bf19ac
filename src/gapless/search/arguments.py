"""What a search may be asked with, checked before the model or the engine sees it, whose own words say little."""

import math
from typing import Any

import numpy as np

from gapless.core.errors import UsageError
from gapless.core.values import is_unicode


def checked_count(k: Any) -> int:
    """A number of hits.

    Raises:
        UsageError: anything but a whole number that is at least 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise UsageError(f"k is a whole number of hits and at least 1, got {k!r:.40}")
    return int(k)


def checked_key(row: Any) -> str:
    """A key of a row.

    Raises:
        UsageError: anything but text.
    """
    if not isinstance(row, str) or not is_unicode(row):
        raise UsageError(f"a row is named by its key, a text such as 'ID/image', got {row!r:.60}")
    return row


def checked_weight(weight: Any) -> float:
    """The share of the image in a query of words and an image.

    Raises:
        UsageError: anything but a number from 0 to 1.
    """
    number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or not 0 <= weight <= 1:
        raise UsageError(f"image_weight is a number from 0 (words alone) to 1 (image alone), got {weight!r:.40}")
    return float(weight)
