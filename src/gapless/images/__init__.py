"""Pixels of any file: grey levels, DICOM, thumbnails, hashes that find copies."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "load_image",
    "thumbnail",
    "verify_image",
]

if TYPE_CHECKING:
    from gapless.images.pixels import load_image, verify_image
    from gapless.images.thumbnails import thumbnail

__getattr__ = lazy_names(
    __name__,
    {
        "load_image": "gapless.images.pixels",
        "thumbnail": "gapless.images.thumbnails",
        "verify_image": "gapless.images.pixels",
    },
)
