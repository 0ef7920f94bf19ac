"""Perceptual hashes of images: 256 bits that stay nearly equal when an image is re-encoded, resized or brightened."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import missing_extra
from gapless.core.progress import progress_bar
from gapless.images.near_copies import HASH_BITS, MAX_BITS
from gapless.images.pixels import ImageRefused, load_image

HASH_SIDE = 16
# Half the bits of an ordinary image's hash are set. A uniform image, or one of stripes in one direction, has nearly all
# coefficients zero and few bits set; such hashes are near to each other although the images differ.
MIN_SET_BITS = 2 * MAX_BITS
FILES_AT_ONCE = 32


class ImageHashes(NamedTuple):
    """Hashes of images, [image, 4] words of 64 bits, and which of them are plain or unreadable."""

    words: NDArray[np.uint64]
    plain: NDArray[np.bool_]
    unreadable: NDArray[np.bool_]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """[image] which hashes can be compared: neither plain nor unreadable."""
        return ~(self.plain | self.unreadable)


def perceptual_hashes(paths: Iterable[Path], count: int) -> ImageHashes:
    """The perceptual hash of each of `count` images, on all cores; zeros where it cannot be read.

    Paths are taken as they are needed: those of a million images would be some hundred MB.
    """
    words = np.zeros((count, HASH_BITS // 64), np.uint64)
    unreadable = np.zeros(count, np.bool_)
    with progress_bar(total=count, what="hashing images", unit="image") as shown:
        for row, hashed in enumerate(_hash_in_order(iter(paths), count)):
            unreadable[row] = hashed is None
            words[row] = 0 if hashed is None else hashed
            shown.update()
    return ImageHashes(words, ~unreadable & (np.bitwise_count(words).sum(axis=1) < MIN_SET_BITS), unreadable)


def _hash_in_order(paths: Iterator[Path], count: int) -> Iterator[NDArray[np.uint64] | None]:
    from gapless.core.pool import map_in_order

    chunks = iter(lambda: list(itertools.islice(paths, FILES_AT_ONCE)), [])
    for hashes in map_in_order(_hash_files, chunks, count):
        yield from hashes


def _hash_files(paths: Sequence[Path]) -> list[NDArray[np.uint64] | None]:
    return [hash_file(path) for path in paths]


def hash_file(path: Path) -> NDArray[np.uint64] | None:
    """ImageHash's perceptual hash, [4] words of 64 bits; None for an image that cannot be read."""
    try:
        import imagehash
    except ImportError:
        raise missing_extra("imagehash", "audit") from None
    from PIL import Image

    try:
        pixels = load_image(path)
    except ImageRefused:
        return None
    bits = imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    words: NDArray[np.uint64] = np.packbits(bits).view(np.uint64)
    return words
