"""Decodes image files with Pillow to 8 bits.

Pillow's own `.convert("RGB")` clips 16-bit images to white and drops alpha; here integers above 8 bits and floats are
scaled from their own minimum and maximum, and transparency is laid over white, as a page shows it.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gapless.core.errors import DataRefused
from gapless.images.deep_colour import deep_rawmode, deep_to_uint8, read_deep
from gapless.images.grey import Pixels, stretch_to_uint8
from gapless.images.limits import ImageRefused, check_size

# Formats in use in radiology. Formats that run programs (EPS), contain others (ICO) or lack maintenance are excluded.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM")

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_TURNED = 5  # from here on width and height change places

# Tags of TIFF.
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_UNSIGNED, _SIGNED = 1, 2


def load_with_pillow(content: bytes) -> Pixels:
    """Decode to uint8, [height, width] or [height, width, 3], rotated as EXIF says."""
    with _decoded(content) as (image, is_deep, _):
        method = _ORIENTATIONS.get(_orientation(image))
        if is_deep:
            pixels = _deep_to_uint8(image, content)
            return pixels if method is None else np.asarray(Image.fromarray(pixels).transpose(method))
        return to_uint8(image if method is None else image.transpose(method))


def verify_with_pillow(content: bytes) -> tuple[int, int]:
    """(height, width) of what `load_with_pillow` gives; raises what it raises, in less time.

    A JPEG is decoded at an eighth of its size, in two thirds of the time: all of its bytes are decoded, and only the
    last step to pixels, which cannot fail, is short.
    """
    with _decoded(content, small=True) as (image, is_deep, (width, height)):
        if is_deep:
            _deep_to_uint8(image, content)
        elif image.mode not in ("L", "RGB"):
            to_uint8(image)
        return (width, height) if _orientation(image) >= _FIRST_TURNED else (height, width)


@contextmanager
def _decoded(content: bytes, small: bool = False) -> Iterator[tuple[Image.Image, bool, tuple[int, int]]]:
    """Pillow's image with its pixels decoded, whether the file holds more bits than Pillow keeps, and (width, height).

    With `small` the image itself may be smaller than that, where its format can be decoded so. Everything that goes
    wrong inside is an ImageRefused.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns where this function refuses (bombs) or copes (broken metadata).
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
                size = image.size
                check_size(*size)
                is_deep = deep_rawmode(image, content) is not None
                if small and not is_deep:
                    image.draft(None, (1, 1))
                image.load()
                yield image, is_deep, size
    except (DataRefused, MemoryError):
        raise
    except UnidentifiedImageError:
        is_tiff = content[:4] in (b"II*\0", b"MM\0*")
        kind = "a TIFF of a kind that is not read, such as floats of 64 bits: convert it first"
        raise ImageRefused("unreadable image", kind if is_tiff else "not an image of an allowed format") from None
    except Image.DecompressionBombError as error:
        raise ImageRefused("too many pixels", str(error)) from None
    except Exception as error:  # decoders raise every kind of exception on damaged input
        raise ImageRefused("unreadable image", f"{type(error).__name__}: {error}"[:200]) from None


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF raises ZeroDivisionError, struct.error, ...: the pixels are still good
        return 1
    return value if isinstance(value, int) and value in _ORIENTATIONS else 1


def _deep_to_uint8(image: Image.Image, content: bytes) -> Pixels:
    key = image.info.get("transparency")
    return deep_to_uint8(read_deep(content, IMAGE_FORMATS), key if isinstance(key, tuple) else None)


def to_uint8(image: Image.Image) -> Pixels:
    """The pixels of a decoded Pillow image of any mode as 8 bits."""
    mode = image.mode
    values = _numbers(image)
    if values is not None:
        key = image.info.get("transparency")
        if isinstance(key, int) and values.dtype == np.uint16:
            return deep_to_uint8(values[..., None], (key,))
        # Pillow turns 8-bit TIFFs that count from white, and leaves deeper ones.
        counts_from_white = _tiff_tag(image, _PHOTOMETRIC) == 0
        return stretch_to_uint8(-values.astype(np.float64) if counts_from_white else values)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _over_white(image.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA"))
    if mode in ("L", "RGB"):
        return np.asarray(image)
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return np.asarray(image.convert("RGB"))
    raise ImageRefused("unreadable image", f"mode {mode} has no conversion to 8 bits")


def _numbers(image: Image.Image) -> NDArray[Any] | None:
    """The pixels of an image that holds numbers rather than 8 bits of grey; None for all others."""
    values = np.asarray(image)
    sample_format = _tiff_tag(image, _SAMPLE_FORMAT)
    if image.mode == "L" and sample_format == _SIGNED:
        return values.view(np.int8)
    if image.mode == "I" and sample_format in (None, _UNSIGNED) and _tiff_tag(image, _BITS) == 32:
        # Pillow has no unsigned mode of 32 bits: half of the range would be negative.
        return values.view(np.uint32)
    if image.mode == "F" or image.mode.startswith("I"):
        return values.astype(np.uint16) if image.mode.startswith("I;16") else values
    return None


def _tiff_tag(image: Image.Image, number: int) -> Any:
    """The first value of a TIFF tag; None when the tag is absent or the image is not a TIFF."""
    tags = getattr(image, "tag_v2", None)
    value = None if tags is None else tags.get(number)
    return value[0] if isinstance(value, tuple) and value else value


def _over_white(image: Image.Image) -> Pixels:
    """An LA or RGBA image composed over white."""
    values = np.asarray(image).astype(np.uint32)
    colour, alpha = values[..., :-1], values[..., -1:]
    blended = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return blended[..., 0] if image.mode == "LA" else blended
