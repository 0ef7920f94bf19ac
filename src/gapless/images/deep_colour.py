"""Reads colours and alpha of 16 bits a channel, of which Pillow keeps only the high byte.

A 12-bit image in such a file would become nearly black (0 to 15). Pillow's decoders unpack the high bytes by default,
and the low bytes when the tile declares the other byte order, so both are read.
"""

import io
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gapless.images.grey import Pixels, quantised, stretch_to_uint8
from gapless.images.limits import ImageRefused

# The byte order of samples in the file (B, L, or N: that of this machine) and the other one.
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_OTHER_ORDER = {
    f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA", "RGBX") for order, other in _SWAPPED.items()
}
_GREY_AND_ALPHA = "LA;16B"
# Alpha that was saved with fewer bits than 16: its largest value is the full value of those bits.
_FULL_ALPHA = (255, 1023, 4095, 16383)


def deep_rawmode(image: Image.Image, content: bytes) -> str | None:
    """How the samples of an opened image lie in its file, when they are colours or alpha of more than 8 bits.

    Args:
        image: opened and not yet decoded: decoding empties the list of tiles.
        content: its file.
    """
    tiles = _tiles(image)
    if not tiles or image.mode not in ("RGB", "RGBA", "LA"):
        return None
    args = tiles[0].args
    if tiles[0].codec_name == "jpeg2k":
        return "jpeg2k" if _bits_of_jpeg_2000(content) > 8 else None
    if tiles[0].codec_name == "ppm" and args[-1] > 255:
        return "ppm"
    rawmode = str(args[0] if isinstance(args, tuple) else args)
    return rawmode if rawmode in _OTHER_ORDER or rawmode == _GREY_AND_ALPHA else None


def read_deep(content: bytes, formats: tuple[str, ...]) -> NDArray[np.uint16]:
    """The samples of a file for which `deep_rawmode` gives a mode, [height, width, channel]."""
    high = _opened(content, formats)  # decoded, it holds the high bytes
    rawmode = deep_rawmode(high, content)
    if rawmode == "jpeg2k":
        return _jpeg_2000(content, len(high.getbands()))
    if rawmode == "ppm":
        shape = (high.height, high.width, 3)
        high.load()  # refuses a file that ends too soon
        samples = np.frombuffer(content, ">u2", int(np.prod(shape)), _tiles(_opened(content, formats))[0].offset)
        return samples.reshape(shape).astype(np.uint16)
    if rawmode == _GREY_AND_ALPHA:
        # Pillow opens grey with alpha as RGBA: its four bytes a pixel are two samples of 16 bits.
        pairs = _decoded_as(high, "RGBA").reshape(high.height, high.width, 2, 2)
        return pairs[..., 0].astype(np.uint16) * np.uint16(256) + pairs[..., 1]
    low = _opened(content, formats)
    low_bytes = _decoded_as(low, _OTHER_ORDER[str(rawmode)])
    return np.asarray(high).astype(np.uint16) * np.uint16(256) + low_bytes


def deep_to_uint8(samples: NDArray[np.uint16], colour_key: tuple[int, ...] | None = None) -> Pixels:
    """Scale 16-bit samples from their smallest and largest value, all channels alike, and lay alpha over white.

    Args:
        samples: [height, width, channel] with 1 or 3 colours, and alpha where there are 2 or 4 channels.
        colour_key: the colour that stands for transparent pixels, as PNG has it.
    """
    colours, opacity = samples, None
    if samples.shape[2] in (2, 4):
        colours, alpha = samples[..., :-1], samples[..., -1]
        largest = int(alpha.max())
        opacity = alpha / (largest if largest in _FULL_ALPHA else 65535)
    elif colour_key is not None:
        opacity = (samples != np.array(colour_key)).any(axis=-1).astype(np.float64)
    hidden = None if opacity is None or not opacity.any() else opacity == 0
    grey = stretch_to_uint8(colours, ignore=hidden)
    if opacity is not None:
        grey = quantised(grey / 255 * opacity[..., None] + 1 - opacity[..., None])
    return grey[..., 0] if grey.shape[2] == 1 else grey


def _bits_of_jpeg_2000(content: bytes) -> int:
    """The bits of the first component, from the SIZ segment of the codestream."""
    start = content.find(b"\xff\x4f\xff\x51")
    return 0 if start < 0 or len(content) < start + 43 else (content[start + 42] & 0x7F) + 1


def _jpeg_2000(content: bytes, channels: int) -> NDArray[np.uint16]:
    try:
        from openjpeg.utils import decode
    except ImportError:
        detail = "colours of more than 8 bits in JPEG 2000 need a codec: pip install 'gapless[dicom]'"
        raise ImageRefused("unreadable image", detail) from None
    samples = np.asarray(decode(content))
    if samples.dtype != np.uint16 or samples.ndim != 3 or samples.shape[2] != channels:
        raise ImageRefused("unreadable image", "JPEG 2000 with samples that are not unsigned numbers of up to 16 bits")
    return samples


def _opened(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=formats)


def _tiles(image: Image.Image) -> list[Any]:
    """Where and how the samples lie in the file, for Pillow's decoders; empty once they are decoded."""
    return list(getattr(image, "tile", []))


def _decoded_as(image: Image.Image, rawmode: str) -> Pixels:
    """The pixels of an opened image, unpacked as if its tiles held samples of `rawmode`."""
    tiles = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in _tiles(image)
    ]
    setattr(image, "tile", tiles)  # noqa: B010  (Pillow declares it only on the classes of its formats)
    return np.asarray(image)
