"""Small changes to an image that leave its caption true, drawn from (seed, epoch, sample id).

No generator and no state: a resumed run, and any number of workers, draw the same pixels. Never a flip: it would
turn "left" into "right".
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIN_CROP = 0.85  # of the side
MAX_GAMMA_CHANGE = 0.25
MAX_GAIN_CHANGE = 0.15
MAX_OFFSET = 0.08  # of white

_RAMP = np.arange(256) / 255


def augment(image: NDArray[np.uint8], seed: int, epoch: int, sample_id: str) -> NDArray[np.uint8]:
    """A random crop scaled back to the size, and a random gamma, gain and offset.

    Args:
        image: uint8, [height, width] or [height, width, 3].
        seed, epoch, sample_id: all that the result depends on besides the image.

    Returns:
        uint8 of the same shape.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"expected uint8 [height, width] or [height, width, 3], got {image.dtype} {image.shape}")
    draws = uniform_draws(f"augment/{seed}/{epoch}/{sample_id}")
    height, width = image.shape[:2]
    side = MIN_CROP + (1 - MIN_CROP) * next(draws)
    left, top = (1 - side) * width * next(draws), (1 - side) * height * next(draws)
    gamma = 1 + MAX_GAMMA_CHANGE * (2 * next(draws) - 1)
    gain = 1 + MAX_GAIN_CHANGE * (2 * next(draws) - 1)
    offset = MAX_OFFSET * (2 * next(draws) - 1)
    cropped = Image.fromarray(image).resize(
        (width, height), Image.Resampling.BILINEAR, box=(left, top, left + side * width, top + side * height)
    )
    levels = np.clip((_RAMP**gamma * gain + offset) * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(levels[np.asarray(cropped)])


def uniform_draws(key: str) -> Iterator[float]:
    """Up to 16 numbers in [0, 1) that depend on the key alone."""
    digest = hashlib.blake2b(key.encode(), digest_size=64).digest()
    for start in range(0, len(digest), 4):
        yield int.from_bytes(digest[start : start + 4], "little") / 2**32
