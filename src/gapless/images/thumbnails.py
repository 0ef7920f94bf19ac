"""Small pictures of images, for pages and collections."""

import io
from pathlib import Path

from gapless.core.errors import DataRefused
from gapless.images.pixels import load_image

THUMBNAIL_SIDE = 160
QUALITY = 70


def thumbnail(source: str | Path | bytes, side: int = THUMBNAIL_SIDE) -> bytes | None:
    """A JPEG whose longer side is at most `side`; None for an image that is gone or cannot be read.

    The JPEG has no metadata: nothing of the source's header, EXIF or file name.
    """
    from PIL import Image

    try:
        image = Image.fromarray(load_image(source))
    except (OSError, DataRefused):
        return None
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()
