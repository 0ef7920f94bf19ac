"""Memory-mapped arrays that are read block by block, without all of the file staying resident."""

import mmap
from typing import Any

import numpy as np


def release_pages(array: Any) -> None:
    """Give back the pages of a file that is mapped to be read; the next access maps them again.

    A page that was read stays resident, so that one pass over a file would count as memory of its whole size. Nothing
    happens to what is no map, nor to a map that can be written, whose changes are kept.

    Args:
        array: a memory map or a part of one; anything else is left alone.
    """
    if not isinstance(array, np.memmap) or array.mode != "r":
        return
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
