"""DICOM: pixels as a reader of the study would see them.

The order of the standard: modality LUT, then VOI window, then inverting MONOCHROME1, then 8 bits (PS3.3 C.11, C.7.6.3).
Nothing but the elements listed here is ever parsed out of a file.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.data.pixels import MAX_PIXELS, ImageRefused, Pixels, check_size, stretch_to_uint8, to_8_bits
from gapless.errors import DataRefused, missing_extra

DEFLATED = "1.2.840.10008.1.2.1.99"
# What a header may add to the pixels of a deflated file before it is taken for a bomb.
MAX_HEADER_BYTES = 16 * 1024 * 1024
INFLATED_AT_ONCE = 1 << 20
MAX_FRAMES = 100_000
FIRST_PIXEL_TAG = 0x7FE00000

_PIXEL_TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData",
)  # fmt: skip


def load_dicom(content: bytes, *, max_pixels: int = MAX_PIXELS, frame: int = 0) -> Pixels:
    """Decode one frame of a DICOM file.

    Args:
        content: the file.
        max_pixels: refuse, before decoding, a frame with more.
        frame: counted from 0; -1 is the middle one.

    Raises:
        ImageRefused: not readable, no image inside, too large, or compressed in a way that no installed codec reads.
            The message holds no header value.
    """
    pydicom = import_pydicom()
    try:
        with silenced():
            dataset = parse_dicom(pydicom, content, _PIXEL_TAGS, max_pixels)
            number = _checked_frame(dataset, frame, max_pixels)
            return _frame_to_uint8(dataset, number)
    except (DataRefused, MemoryError):
        raise
    except Exception as error:  # pydicom raises every kind of exception, with header values in the message
        raise ImageRefused("unreadable image", f"DICOM: {type(error).__name__}") from None


def import_pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise missing_extra("pydicom", "dicom") from None
    return pydicom


@contextmanager
def silenced() -> Iterator[None]:
    """pydicom's warnings and log lines quote header values."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def parse_dicom(pydicom: Any, content: bytes, tags: tuple[str, ...], max_pixels: int) -> Any:
    stream = io.BytesIO(content)
    stream.seek(132)
    # The public function for this takes only paths.
    meta = pydicom.filereader._read_file_meta_info(stream)
    if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
        _check_inflated_size(pydicom, content[stream.tell() :], max_pixels)
    return pydicom.dcmread(io.BytesIO(content), specific_tags=list(tags))


def _check_inflated_size(pydicom: Any, deflated: bytes, max_pixels: int) -> None:
    """Refuse a deflate bomb: a file that inflates to more than its own pixels and a header need."""
    limit = _pixel_bytes(pydicom, deflated, max_pixels) + MAX_HEADER_BYTES
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    while deflated and not inflater.eof:
        size += len(inflater.decompress(deflated, INFLATED_AT_ONCE))
        deflated = inflater.unconsumed_tail
        if size > limit:
            raise ImageRefused("too many pixels", f"a deflated DICOM file inflates to more than {limit} bytes")


def _pixel_bytes(pydicom: Any, deflated: bytes, max_pixels: int) -> int:
    """How many bytes of pixels a deflated data set announces."""
    head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, INFLATED_AT_ONCE)
    sizes = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames")
    header = pydicom.filereader.read_dataset(
        io.BytesIO(head),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag >= FIRST_PIXEL_TAG,
        specific_tags=[pydicom.tag.Tag(name) for name in sizes],
    )
    rows, columns, samples, bits, frames = (max(1, int(header.get(name) or 1)) for name in sizes)
    check_size(columns, rows * frames, max_pixels)
    return rows * columns * frames * samples * bits // 8


def _checked_frame(dataset: Any, frame: int, max_pixels: int) -> int:
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageRefused("unreadable image", "the DICOM file holds no image")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    check_size(columns, rows, max_pixels)
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= num_frames <= MAX_FRAMES:
        raise ImageRefused("unreadable image", "DICOM: the number of frames is not plausible")
    number = num_frames // 2 if frame == -1 else frame
    if not 0 <= number < num_frames:
        raise ImageRefused("unreadable image", f"DICOM: frame {frame} of {num_frames}")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax != DEFLATED:
        _check_codestream(dataset, syntax, number, num_frames, (columns, rows))
    return number


def _check_codestream(dataset: Any, syntax: Any, number: int, num_frames: int, size: tuple[int, int]) -> None:
    """The compressed frame must have the size that the header says, before a decoder allocates for it."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    if not get_decoder(syntax).is_available:
        raise ImageRefused("unreadable image", "DICOM: no installed codec for its transfer syntax")
    actual = codestream_size(get_frame(dataset.PixelData, number, number_of_frames=num_frames))
    if actual is not None and actual != size:
        raise ImageRefused("unreadable image", f"DICOM: the compressed frame is {actual}, its header says {size}")


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a JPEG, JPEG-LS or JPEG 2000 codestream; None when it is neither."""
    if frame[:4] == b"\xff\x4f\xff\x51":
        width, height, left, top = struct.unpack(">4I", frame[8:24])
        return width - left, height - top
    if frame[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(frame):
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        is_start_of_frame = marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
        if is_start_of_frame:
            height, width = struct.unpack(">HH", frame[position + 5 : position + 9])
            return width, height
        if marker == 0xFF:
            position += 1
            continue
        position += 2 + struct.unpack(">H", frame[position + 2 : position + 4])[0]
    raise ImageRefused("unreadable image", "DICOM: the compressed frame has no readable header")


def _frame_to_uint8(dataset: Any, number: int) -> Pixels:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    values = pixel_array(dataset, index=number)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        return to_8_bits(apply_color_lut(values, dataset))
    if values.ndim == 3:
        return to_8_bits(values, int(dataset.get("BitsStored", 8)))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageRefused("unreadable image", "DICOM: unknown photometric interpretation")
    return _grey_to_uint8(values, _display_elements(dataset, number), inverted=photometric == "MONOCHROME1")


def _display_elements(dataset: Any, number: int) -> Any:
    """What turns stored values into grey: top-level elements, overridden by the functional groups of the frame."""
    for groups in (
        dataset.get("SharedFunctionalGroupsSequence") or [],
        (dataset.get("PerFrameFunctionalGroupsSequence") or [])[number : number + 1],
    ):
        for group in groups:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                for item in group.get(name) or []:
                    dataset.update(item)
    return dataset


def _grey_to_uint8(stored: NDArray[Any], dataset: Any, inverted: bool) -> Pixels:
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        grey = _quantised(apply_voi(values, dataset) / float(2**bits - 1))
    elif window := _window(dataset):
        grey = _quantised(windowed(values, *window))
    elif stored.dtype == np.uint8 and np.array_equal(values, stored):
        # Eight plain bits are what the scanner put on its own screen.
        grey = stored
    else:
        grey = stretch_to_uint8(values, ignore=_padding(stored, dataset))
    return 255 - grey if inverted else grey


def _window(dataset: Any) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first window, when it is a usable one."""
    centre, width = (_first_number(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or not np.isfinite([centre, width]).all() or width <= 0:
        return None
    return None if function == "LINEAR" and width < 1 else (centre, width, function)


def _first_number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0]) if hasattr(value, "__getitem__") and not isinstance(value, str) else float(value)


def windowed(values: NDArray[Any], centre: float, width: float, function: str = "LINEAR") -> NDArray[np.float64]:
    """The window of PS3.3 C.11.2.1: 0 below it, 1 above it."""
    x = values.astype(np.float64)
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (x - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.clip((x - centre) / width + 0.5, 0, 1)
    if width == 1:
        return np.asarray((x > centre - 0.5).astype(np.float64))
    return np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _quantised(share: NDArray[Any]) -> Pixels:
    return np.asarray(np.floor(np.clip(np.nan_to_num(share), 0, 1) * 255 + 0.5).astype(np.uint8))


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    """Where a scanner filled the square around its round field: not to be stretched over."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit", value)
    padding = (stored >= min(value, limit)) & (stored <= max(value, limit))
    return None if padding.all() else padding
