"""Small pictures of images, for pages and collections."""

import io
from pathlib import Path

from gapless.core.errors import DataRefused
from gapless.images.pixels import Pixels, load_image

THUMBNAIL_SIDE = 160
QUALITY = 70


def thumbnail(source: str | Path | bytes, side: int = THUMBNAIL_SIDE) -> bytes | None:
    """A JPEG whose longer side is at most `side` pixels; None for an image that is missing or cannot be read.

    The JPEG has no metadata: nothing of the source's header, EXIF or file name.
    """
    try:
        return thumbnail_of_pixels(load_image(source), side)
    except (OSError, DataRefused):
        return None


def thumbnail_of_pixels(pixels: Pixels, side: int = THUMBNAIL_SIDE) -> bytes:
    """A JPEG of 8-bit pixels whose longer side is at most `side`."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()
