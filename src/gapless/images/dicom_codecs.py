"""Chooses the codec of a compressed DICOM frame, and names the package to install where none reads it."""

import importlib.util
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from gapless.images.limits import ImageRefused

_EXTRA = "pip install 'gapless[dicom]'"
_LOSSLESS = "pip install python-gdcm, or pylibjpeg-libjpeg (GPL)"
_TWELVE = "pip install pylibjpeg-libjpeg (GPL)"
JPEG_BASELINE, JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
# Transfer syntax -> its name, and the package that reads it.
_SYNTAXES = {
    JPEG_BASELINE: ("JPEG", _EXTRA),
    JPEG_EXTENDED: ("JPEG of 12 bits", _TWELVE),
    "1.2.840.10008.1.2.4.57": ("lossless JPEG", _LOSSLESS),
    "1.2.840.10008.1.2.4.70": ("lossless JPEG", _LOSSLESS),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pip install pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", "pip install pyjpegls"),
    **dict.fromkeys(JPEG_2000, ("JPEG 2000", _EXTRA)),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000", _EXTRA),
    "1.2.840.10008.1.2.4.202": ("High-Throughput JPEG 2000", _EXTRA),
    "1.2.840.10008.1.2.4.203": ("High-Throughput JPEG 2000", _EXTRA),
    "1.2.840.10008.1.2.5": ("RLE", _EXTRA),
}
# pydicom's decoders in the order in which they are tried. The order is fixed, so that a codec installed for one syntax
# does not change the pixels of another. Pillow is first for JPEG, as in earlier versions.
_ORDER = ("pyjpegls", "pylibjpeg", "gdcm", "pillow", "pydicom")
_ORDER_OF_JPEG = ("pillow", "pylibjpeg", "gdcm")


class Codestream(NamedTuple):
    """The header of a compressed frame."""

    width: int
    height: int
    bits: int


def decoder_for(syntax: Any) -> Any:
    """pydicom's decoder of a transfer syntax.

    Raises:
        ImageRefused: none installed reads it; the message names the package that does.
    """
    from pydicom.pixels.decoders.base import get_decoder

    name, advice = _SYNTAXES.get(str(syntax), ("", ""))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        kind = (
            "as a video" if str(syntax).startswith("1.2.840.10008.1.2.4.10") else "in a way that no known codec reads"
        )
        raise ImageRefused("unreadable image", f"DICOM: it is compressed {kind}; convert it first") from None
    if not decoder.is_available:
        raise ImageRefused("unreadable image", f"DICOM: it is compressed as {name}, which needs a codec: {advice}")
    return decoder


def decode_frame(decoder: Any, image: Any, number: int, **options: Any) -> tuple[Any, dict[str, Any]]:
    """One frame by the first decoder that manages it: (values, pydicom's properties of them).

    Raises:
        ImageRefused: every installed codec failed; the message names a codec that is missing, if one is.
    """
    if not decoder.is_encapsulated:
        values, properties = decoder.as_array(image, index=number, **options)
        return values, properties
    for plugin in _plugins(decoder):
        try:
            values, properties = decoder.as_array(image, index=number, decoding_plugin=plugin, **options)
            return values, properties
        except Exception:  # the next codec may support this kind of frame
            continue
    name, advice = _SYNTAXES.get(str(decoder.UID), ("compressed", ""))
    if str(decoder.UID) == JPEG_EXTENDED and importlib.util.find_spec("libjpeg") is None:
        raise ImageRefused("unreadable image", f"DICOM: it is compressed as {name}, which needs a codec: {advice}")
    raise ImageRefused("unreadable image", f"DICOM: its frame ({name}) is damaged: no installed codec decodes it")


def _plugins(decoder: Any) -> Iterator[str]:
    order = _ORDER_OF_JPEG if str(decoder.UID) in (JPEG_BASELINE, JPEG_EXTENDED) else _ORDER
    yield from sorted(decoder.available_plugins, key=lambda name: order.index(name) if name in order else len(order))


def read_codestream(image: Any, number: int, num_frames: int) -> Codestream | None:
    """The header of a compressed frame.

    Args:
        image: the data set with the pixels.
    """
    from pydicom.encaps import get_frame

    return codestream(get_frame(image.PixelData, number, number_of_frames=num_frames))


def codestream(frame: bytes) -> Codestream | None:
    """The header of a JPEG, JPEG-LS or JPEG 2000 codestream; None when it is neither."""
    if frame[:4] == b"\xff\x4f\xff\x51":
        width, height, left, top = struct.unpack(">4I", frame[8:24])
        return Codestream(width - left, height - top, (frame[42] & 0x7F) + 1)
    if frame[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(frame):
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        is_start_of_frame = marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
        if is_start_of_frame:
            bits, height, width = struct.unpack(">BHH", frame[position + 4 : position + 9])
            return Codestream(width, height, bits)
        if marker == 0xFF:
            position += 1
            continue
        position += 2 + struct.unpack(">H", frame[position + 2 : position + 4])[0]
    raise ImageRefused("unreadable image", "DICOM: the compressed frame has no readable header")
