"""Scales pixel values of any depth to 8 bits.

Grey of more than 8 bits is scaled from its own smallest and largest value. Colours and lookup tables are scaled by the
bits that they declare, because a dark picture may be meant to be dark; only values that contradict what is declared
(12 bits in a table that claims 16 would be nearly black) are scaled by the bits that they hold.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.images.limits import ImageRefused

Pixels = NDArray[np.uint8]

# The depths of displays and detectors: a table whose largest entry is 3000 holds 12 bits.
_USUAL_BITS = (6, 8, 10, 12, 14, 16)
MAX_TABLE_BITS = 16


def stretch_to_uint8(values: NDArray[Any], ignore: NDArray[np.bool_] | None = None) -> Pixels:
    """Scale from the smallest and largest finite value to 0 and 255.

    Pixels that are not finite, or below the smallest value that counts, become 0; so does a constant image.

    Args:
        values: any numbers, [height, width] or [height, width, channel]; the channels share one range.
        ignore: pixels that do not count for the smallest and largest value, [height, width].
    """
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    counted = finite
    if ignore is not None:
        counted = finite & ~(ignore if ignore.ndim == values.ndim else ignore[..., None])
    if not counted.any():
        raise ImageRefused("unreadable image", "no finite pixel")
    low, high = values[counted].min(), values[counted].max()
    if high == low:
        return np.zeros(values.shape, np.uint8)
    # Divided by 2 first, because the difference of two extreme floats overflows.
    return quantised((np.where(finite, values, low) / 2 - low / 2) / (high / 2 - low / 2))


def quantised(share: NDArray[Any]) -> Pixels:
    """Shares of white, 0 to 1, as 8 bits; what is beyond is cut off, and what is not a number is black."""
    return np.asarray(np.floor(np.clip(np.nan_to_num(share), 0, 1) * 255 + 0.5).astype(np.uint8))


def to_8_bits(values: NDArray[Any], bits: int) -> Pixels:
    """Non-negative integers of `bits` bits as 8 bits: deeper ones by their high bits, shallower ones scaled."""
    if bits < 8:
        return quantised(values / (2**bits - 1))
    return np.asarray((values >> (bits - 8)).clip(0, 255).astype(np.uint8))


def bits_held(values: NDArray[Any], declared: int | None) -> int:
    """How many bits full white has: as declared, unless the values contradict it.

    They contradict it by being larger than the declared bits allow, or by leaving two or more of the declared bits
    above 8 unused in every value.

    Args:
        values: non-negative integers: the colours of an image, or the entries of its lookup tables.
        declared: what the header says; None when it says nothing usable.
    """
    largest = int(values.max()) if values.size else 0
    needed = next((bits for bits in _USUAL_BITS if largest < 2**bits), largest.bit_length())
    if declared is None or declared < 1 or largest >= 2**declared:
        return max(needed, 8)
    unused = declared > 8 and needed <= declared - 2
    return needed if unused and not (declared == MAX_TABLE_BITS and _is_spread(values, largest)) else declared


def _is_spread(values: NDArray[Any], largest: int) -> bool:
    """Whether these are 8-bit values written in 16 bits (times 256 or 257): dark ones are then meant to be dark."""
    return largest > 255 and any(bool((values % factor == 0).all()) for factor in (256, 257))
