"""Images that are the same picture: byte for byte, or re-encoded, resized, brightened."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gapless.data.pixels import ImageRefused, load_image
from gapless.errors import missing_extra

HASH_SIDE = 16
# Measured on 700 MedPix images: copies at JPEG quality 40, at 1/4 to 1.7 times the size or brightened differ in at most
# 20 of the 256 bits, two different images in at least 41.
MAX_BITS = 24
# The coarse corner of the hash decides quickly for most pairs.
CORNER_SIDE = 8
MAX_CORNER_BITS = 12
ROWS_AT_ONCE = 256

Hashes = NDArray[np.uint64]


def perceptual_hashes(paths: Sequence[Path]) -> Hashes:
    """The 256-bit perceptual hash of each image, as [image, 4] words; an unreadable one is all zeros."""
    with tqdm(total=len(paths), desc="hashing images", unit="image", disable=None) as progress:
        hashes = np.zeros((len(paths), HASH_SIDE * HASH_SIDE // 64), np.uint64)
        for row, hash_words in enumerate(_hash_in_order(paths)):
            hashes[row] = hash_words
            progress.update()
    return hashes


def _hash_in_order(paths: Sequence[Path]) -> Iterator[NDArray[np.uint64]]:
    from gapless.data.workers import map_in_order

    chunks = (paths[start : start + 32] for start in range(0, len(paths), 32))
    for hashes in map_in_order(_hash_files, chunks, len(paths)):
        yield from hashes


def _hash_files(paths: Sequence[Path]) -> list[NDArray[np.uint64]]:
    return [hash_file(path) for path in paths]


def hash_file(path: Path) -> NDArray[np.uint64]:
    """ImageHash's perceptual hash; its coarse corner comes first."""
    try:
        import imagehash
    except ImportError:
        raise missing_extra("imagehash", "audit") from None
    from PIL import Image

    try:
        pixels = load_image(path)
    except ImageRefused:
        return np.zeros(HASH_SIDE * HASH_SIDE // 64, np.uint64)
    bits = imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    corner = np.zeros_like(bits)
    corner[:CORNER_SIDE, :CORNER_SIDE] = True
    return np.packbits(np.concatenate([bits[corner], bits[~corner]])).view(np.uint64)


def near_pairs(hashes: Hashes, max_bits: int = MAX_BITS) -> Iterator[tuple[int, int]]:
    """Pairs of rows (i < j) whose hashes differ in at most `max_bits` bits; rows of zeros are in none."""
    usable = np.flatnonzero(hashes.any(axis=1))
    words = hashes[usable]
    corner = np.ascontiguousarray(words[:, 0])
    for start in range(0, len(words), ROWS_AT_ONCE):
        block = corner[start : start + ROWS_AT_ONCE, None]
        near = np.bitwise_count(block ^ corner[None, start:]) <= min(MAX_CORNER_BITS, max_bits)
        left, right = np.nonzero(near)
        left, right = left + start, right + start
        ahead = left < right
        left, right = left[ahead], right[ahead]
        bits = np.bitwise_count(words[left] ^ words[right]).sum(axis=1)
        for i, j in zip(left[bits <= max_bits], right[bits <= max_bits], strict=True):
            yield int(usable[i]), int(usable[j])


def equal_rows(keys: Sequence[str]) -> list[list[int]]:
    """Rows that share a key, as lists of at least two."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    return [members for members in rows.values() if len(members) > 1]
