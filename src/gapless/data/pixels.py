"""From the bytes of an image file to an 8-bit array, the one way in this project.

    load_image(path_or_bytes) -> uint8 [height, width] or [height, width, 3]

Pillow's own `.convert("RGB")` clips 16-bit images to white and drops alpha; here integers above 8 bits and floats are
scaled from their own minimum and maximum, and transparency is laid over white, as a page shows it.
"""

import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gapless.errors import DataRefused

Pixels = NDArray[np.uint8]

MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 30  # a sparse file can be huge and cost its sender nothing
# What radiology comes in. Formats that run programs (EPS), nest others (ICO) or are rarely maintained stay out.
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
FIRST_TURNED = 5  # from here on width and height change places


class ImageRefused(DataRefused):
    """One image that cannot be used; `reason` is one of a few phrases that can be counted, `detail` says the rest."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason} ({detail})" if detail else reason)

    def __reduce__(self) -> tuple[type["ImageRefused"], tuple[str, str]]:
        return ImageRefused, (self.reason, self.detail)


def load_image(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> Pixels:
    """Decode an image of any allowed format, DICOM included, to 8 bits.

    Args:
        source: a path, or the encoded bytes.
        max_pixels: refuse, from the header and before decoding, an image with more.
        frame: which frame of a multi-frame DICOM file; -1 is the middle one. Of an animation the first is used.

    Returns:
        uint8, [height, width] when grey, [height, width, 3] when coloured; rotated as EXIF says.

    Raises:
        ImageRefused: missing, truncated, of another format, above the cap, or without a finite pixel.
    """
    content = source if isinstance(source, bytes) else read_file(Path(source), str(source))
    if is_dicom(content):
        from gapless.data.dicom import load_dicom

        return load_dicom(content, max_pixels=max_pixels, frame=frame)
    return _load_with_pillow(content, max_pixels)


def read_file(path: Path, name: str) -> bytes:
    """The bytes of an image file, which messages call `name`."""
    try:
        # not blocking: opening a pipe would wait for somebody who writes into it
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageRefused("not a file", name)
            if status.st_size > MAX_BYTES:
                raise ImageRefused("file too large", name)
            return stream.read()
    except OSError as error:
        raise ImageRefused("missing image", f"{name}: {error.strerror}") from None


def is_dicom(content: bytes) -> bool:
    return content[128:132] == b"DICM"


def check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageRefused("empty image", f"{width} x {height}")
    if width * height > max_pixels:
        raise ImageRefused("too many pixels", f"{width} x {height} is above {max_pixels}")


def verify_image(content: bytes, *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> tuple[int, int]:
    """Whether `load_image` would succeed, in less time: plain 8-bit pixels are decoded but not copied.

    Returns:
        (height, width) of what `load_image` gives.

    Raises:
        ImageRefused: as `load_image`.
    """
    if is_dicom(content):
        height, width = load_image(content, max_pixels=max_pixels, frame=frame).shape[:2]
        return height, width
    with _decoded(content, max_pixels) as image:
        if image.mode not in ("L", "RGB"):
            to_uint8(image)
        width, height = image.size
        return (width, height) if _orientation(image) >= FIRST_TURNED else (height, width)


def _load_with_pillow(content: bytes, max_pixels: int) -> Pixels:
    with _decoded(content, max_pixels) as image:
        method = _ORIENTATIONS.get(_orientation(image))
        return to_uint8(image if method is None else image.transpose(method))


@contextmanager
def _decoded(content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Pillow's image with its pixels decoded; everything that goes wrong inside is an ImageRefused."""
    try:
        with warnings.catch_warnings():
            # Pillow warns where this function refuses (bombs) or copes (broken metadata).
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
                check_size(*image.size, max_pixels)
                image.load()
                yield image
    except (DataRefused, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageRefused("unreadable image", "not an image of an allowed format") from None
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


def to_uint8(image: Image.Image) -> Pixels:
    """The pixels of a decoded Pillow image of any mode as 8 bits."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        values = np.asarray(image)
        # Pillow turns 8-bit TIFFs that count from white, and leaves deeper ones.
        counts_from_white = _tiff_photometric(image) == 0
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


def _tiff_photometric(image: Image.Image) -> Any:
    tags = getattr(image, "tag_v2", None)
    return None if tags is None else tags.get(262)


def _over_white(image: Image.Image) -> Pixels:
    """LA or RGBA on a white page."""
    values = np.asarray(image).astype(np.uint32)
    colour, alpha = values[..., :-1], values[..., -1:]
    blended = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return blended[..., 0] if image.mode == "LA" else blended


def stretch_to_uint8(values: NDArray[Any], ignore: NDArray[np.bool_] | None = None) -> Pixels:
    """Scale from the smallest and largest finite value to 0 and 255.

    Pixels that are not finite, or below the smallest value that counts, become 0; so does a constant image.

    Args:
        values: any numbers, [height, width].
        ignore: pixels that do not count for the smallest and largest value.
    """
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    counted = finite if ignore is None else finite & ~ignore
    if not counted.any():
        raise ImageRefused("unreadable image", "no finite pixel")
    low, high = values[counted].min(), values[counted].max()
    if high == low:
        return np.zeros(values.shape, np.uint8)
    # Halves first: the difference of two extreme floats overflows.
    scaled = (np.where(finite, values, low) / 2 - low / 2) / (high / 2 - low / 2)
    return np.asarray(np.floor(np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8))


def to_8_bits(values: NDArray[Any], bits: int = 16) -> Pixels:
    """Colours of `bits` bits as 8 bits by their high byte; 8-bit colours stay."""
    if values.dtype == np.uint8:
        return values
    return np.asarray((values >> max(bits - 8, 0)).clip(0, 255).astype(np.uint8))
