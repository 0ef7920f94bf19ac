"""Decodes DICOM to the pixels that a radiologist would see on a screen.

The order of the standard: modality LUT, then VOI window, then inverting MONOCHROME1, then 8 bits (PS3.3 C.11, C.7.6.3).
Only the elements listed here are parsed. An element that is empty or malformed is treated as absent.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import DataRefused
from gapless.images.dicom_elements import integer, items, number, numbers, text
from gapless.images.dicom_file import import_pydicom, parse_dicom, silenced
from gapless.images.dicom_frames import StoredFrame, read_frame
from gapless.images.dicom_tables import first_table, palette_to_uint8
from gapless.images.grey import Pixels, bits_held, quantised, stretch_to_uint8
from gapless.images.limits import ImageRefused

PIXEL_TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit", "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData",
)  # fmt: skip


def load_dicom(content: bytes, *, frame: int = 0) -> Pixels:
    """Decode one frame of a DICOM file.

    Args:
        content: the file.
        frame: counted from 0; -1 is the middle one.

    Raises:
        ImageRefused: not readable, no image inside, too large, or compressed in a way that no installed codec reads.
            The message holds no header value.
    """
    pydicom = import_pydicom()
    try:
        with silenced():
            dataset = parse_dicom(pydicom, content, PIXEL_TAGS)
            stored, index = read_frame(dataset, frame)
            return _to_uint8(stored, dataset, index)
    except (DataRefused, MemoryError):
        raise
    except Exception as error:  # pydicom raises every kind of exception, with header values in the message
        detail = f"DICOM: the file is damaged, or breaks the standard in an unknown way: {type(error).__name__}"
        raise ImageRefused("unreadable image", detail) from None


def values_of(dataset: Any) -> NDArray[np.float32]:
    """The pixels of a data set of one grey frame in the units of its modality (such as Hounsfield), without a window.

    Args:
        dataset: from `parse_dicom`, with the elements of `PIXEL_TAGS`.

    Returns:
        [row, column] fp32; NaN on padding.

    Raises:
        ImageRefused: colours, or as `load_dicom`.
    """
    stored, index = read_frame(dataset, 0)
    if not stored.photometric.startswith("MONOCHROME"):
        raise ImageRefused("unreadable image", "DICOM: a slice of a volume is grey, and this one is coloured")
    values = _modality_values(stored.values, dataset, _display_items(dataset, index)).astype(np.float32)
    padding = _padding(stored, dataset)
    return values if padding is None else np.where(padding, np.float32(np.nan), values)


def _to_uint8(stored: StoredFrame, dataset: Any, index: int) -> Pixels:
    if stored.photometric == "RGB":
        return np.asarray(stored.values)
    if stored.photometric == "PALETTE COLOR":
        return palette_to_uint8(stored.values, dataset)
    grey = _grey_to_uint8(stored, dataset, _display_items(dataset, index))
    return 255 - grey if stored.photometric == "MONOCHROME1" else grey


def _display_items(dataset: Any, index: int) -> list[Any]:
    """Data sets that may hold the elements of the grey scale, the most specific first: the functional groups of the
    frame, those of all frames, the data set itself.
    """
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")[index : index + 1]
    groups = [*per_frame, *items(dataset, "SharedFunctionalGroupsSequence")]
    names = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
    return [item for group in groups for name in names for item in items(group, name)] + [dataset]


def _grey_to_uint8(stored: StoredFrame, dataset: Any, places: list[Any]) -> Pixels:
    values = _modality_values(stored.values, dataset, places)
    for place in places:
        if table := first_table(place, "VOILUTSequence", dataset):
            bits = bits_held(table.entries, table.bits)
            return quantised(table(values) / float(2**bits - 1))
        if window := _window(place):
            return quantised(windowed(values, *window))
    if stored.bits == 1 and stored.values.max() <= 1 and np.array_equal(values, stored.values):
        return np.asarray(values * 255, np.uint8)
    if stored.values.dtype == np.uint8 and stored.bits == 8 and np.array_equal(values, stored.values):
        # Values of 8 bits without a window are already what the scanner displayed.
        return stored.values
    return stretch_to_uint8(values, ignore=_padding(stored, dataset))


def _modality_values(stored: NDArray[Any], dataset: Any, places: list[Any]) -> NDArray[Any]:
    """The stored values in the units of the modality (such as Hounsfield), by its LUT or by slope and intercept."""
    for place in places:
        if table := first_table(place, "ModalityLUTSequence", dataset):
            return table(stored)
        slope, intercept = number(place, "RescaleSlope"), number(place, "RescaleIntercept")
        if slope is not None or intercept is not None:
            # A slope of 0 would erase the image, so it is treated like an empty one.
            return np.asarray(stored.astype(np.float64) * (slope or 1.0) + (intercept or 0.0))
    return stored


def _window(place: Any) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first usable window."""
    function = text(place, "VOILUTFunction")
    function = function if function in ("SIGMOID", "LINEAR_EXACT") else "LINEAR"
    least = 1.0 if function == "LINEAR" else 0.0
    for centre, width in zip(numbers(place, "WindowCenter"), numbers(place, "WindowWidth"), strict=False):
        if centre is not None and width is not None and width > 0 and width >= least:
            return centre, width, function
    return None


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


def _padding(stored: StoredFrame, dataset: Any) -> NDArray[np.bool_] | None:
    """Which pixels are padding around a round field of view; they must not count for the grey scale."""
    if stored.values.dtype.kind == "f":
        kind = "Float" if stored.values.dtype == np.float32 else "DoubleFloat"
        value = number(dataset, f"{kind}PixelPaddingValue")
        limit = number(dataset, f"{kind}PixelPaddingRangeLimit")
    else:
        value, limit = (
            _as_stored(integer(dataset, name), stored) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        )
    if value is None:
        return None
    limit = value if limit is None else limit
    padding = (stored.values >= min(value, limit)) & (stored.values <= max(value, limit))
    return None if padding.all() else padding


def _as_stored(value: int | None, stored: StoredFrame) -> int | None:
    """A padding value with the sign of the pixels, from the same bits.

    63536 beside signed pixels is -2000 written as US, and -2000 beside unsigned ones is 63536 written as SS.
    """
    if value is None:
        return None
    signed = stored.values.dtype.kind == "i"
    for bits in (16, stored.bits):
        low, high = (-(1 << stored.bits - 1), (1 << stored.bits - 1) - 1) if signed else (0, (1 << stored.bits) - 1)
        if low <= value <= high:
            return value
        value %= 1 << bits
        value -= (1 << bits) if signed and value >= 1 << bits - 1 else 0
    return value
