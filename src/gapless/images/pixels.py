"""Decodes image files to 8-bit arrays.

    load_image(path_or_bytes) -> uint8 [height, width] or [height, width, 3]

`pillow_images` decodes image files, `dicom` decodes DICOM.
"""

import os
import stat
from pathlib import Path

from gapless.images.dicom_file import is_dicom
from gapless.images.grey import Pixels, stretch_to_uint8
from gapless.images.limits import MAX_BYTES, MAX_PIXELS, ImageRefused, check_size
from gapless.images.pillow_images import load_with_pillow, verify_with_pillow

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageRefused",
    "Pixels",
    "check_size",
    "is_dicom",
    "load_image",
    "read_file",
    "stretch_to_uint8",
    "verify_image",
]


def load_image(source: str | Path | bytes, *, frame: int = 0) -> Pixels:
    """Decode an image of any allowed format, DICOM included, to 8 bits.

    Args:
        source: a path, or the encoded bytes.
        frame: which frame of a multi-frame DICOM file; -1 is the middle one. Of an animation the first is used.

    Returns:
        uint8, [height, width] when grey, [height, width, 3] when coloured; rotated as EXIF says.

    Raises:
        ImageRefused: missing, truncated, of another format, without a finite pixel, or of more than `MAX_PIXELS`, which
            its header tells before anything is decoded.
    """
    content = source if isinstance(source, bytes) else read_file(Path(source), str(source))
    if is_dicom(content):
        from gapless.images.dicom import load_dicom

        return load_dicom(content, frame=frame)
    return load_with_pillow(content)


def verify_image(content: bytes, *, frame: int = 0) -> tuple[int, int]:
    """Whether `load_image` would succeed, in less time: plain 8-bit pixels are decoded but not copied.

    Returns:
        (height, width) of what `load_image` gives.

    Raises:
        ImageRefused: as `load_image`.
    """
    if is_dicom(content):
        height, width = load_image(content, frame=frame).shape[:2]
        return height, width
    return verify_with_pillow(content)


def read_file(path: Path, name: str) -> bytes:
    """The bytes of an image file, which messages call `name`."""
    try:
        # not blocking: opening a named pipe would otherwise wait for a writer
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageRefused("not a file", name)
            if status.st_size > MAX_BYTES:
                raise ImageRefused("file too large", name)
            return stream.read()
    except OSError as error:
        raise ImageRefused("missing image", f"{name}: {error.strerror}") from None
