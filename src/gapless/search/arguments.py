"""What a search may be asked with, checked before the model or the engine sees it, whose own words say little."""

import math
import unicodedata
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gapless.core.errors import UsageError

INVISIBLE = ("Z", "C")  # Unicode categories: separators; control and format characters


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


def checked_words(text: Any) -> str:
    """The words of a query.

    Raises:
        UsageError: no text, nothing that can be seen, or half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise UsageError(f"the words of a query are text, got {type(text).__name__}")
    if not is_unicode(text):
        place = next(number for number, character in enumerate(text, 1) if not is_unicode(character))
        raise UsageError(
            f"character {place} of the query is half of a surrogate pair, which is no character: its text was decoded "
            "with the wrong encoding, or cut inside an emoji"
        )
    if all(unicodedata.category(character)[0] in INVISIBLE for character in text):
        raise UsageError("the query is empty; give words or an image")
    return text


def checked_image(image: Any) -> Any:
    """A path, the bytes of an image file, or 8-bit pixels: [height, width] grey or [height, width, 3] coloured.

    Raises:
        UsageError: anything else.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | PathLike):
        if "\0" in str(image) or not str(image).strip():
            raise UsageError(f"the path of the image names no file: {str(image)!r:.60}")
        return Path(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(
            f"an image is a path, the bytes of an image file or an array of pixels, got {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise UsageError(
            f"pixels are 8-bit, [height, width] or [height, width, 3], got {image.dtype} of shape {image.shape}"
        )
    return image


def checked_weight(weight: Any) -> float:
    """The share of the image in a query of words and an image.

    Raises:
        UsageError: anything but a number from 0 to 1.
    """
    number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
    if not number or not math.isfinite(weight) or not 0 <= weight <= 1:
        raise UsageError(f"image_weight is a number from 0 (words alone) to 1 (image alone), got {weight!r:.40}")
    return float(weight)


def is_unicode(text: str) -> bool:
    """Whether every character is one. Halves of surrogate pairs come from broken encodings; no library takes them."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
