"""The stored values of one frame of a DICOM file (PS3.3 C.7.6.3, PS3.5 section 8).

pydicom decodes, and trusts the header. So empty and contradictory elements are corrected first, and BitsAllocated where
the length of the pixel data contradicts it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.images.dicom_codecs import decode_frame, decoder_for, read_codestream
from gapless.images.dicom_elements import integer, text
from gapless.images.grey import bits_held, to_8_bits
from gapless.images.limits import ImageRefused, check_size

MAX_FRAMES = 100_000
_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
# YBR_ICT and YBR_RCT exist only inside JPEG 2000: its decoders, and tools that only decompress, give RGB.
_RGB = ("RGB", "YBR_ICT", "YBR_RCT")
_YBR = ("YBR_FULL", "YBR_FULL_422")


@dataclass(frozen=True)
class StoredFrame:
    """One frame as it is stored.

    Args:
        values: [rows, columns]; colours are RGB of 8 bits, [rows, columns, 3].
        bits: how many bits each stored value has.
        photometric: MONOCHROME1, MONOCHROME2, PALETTE COLOR or RGB.
    """

    values: NDArray[Any]
    bits: int
    photometric: str


@dataclass(frozen=True)
class _Layout:
    """The Image Pixel module, without contradictions."""

    keyword: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high_bit: int
    signed: int
    planar: int

    @property
    def size(self) -> int:
        """Samples of all frames."""
        return self.rows * self.columns * self.samples * self.frames


def read_frame(dataset: Any, frame: int) -> tuple[StoredFrame, int]:
    """The stored values of a frame, and its number.

    Args:
        dataset: from `parse_dicom`, with the elements of the Image Pixel module.
        frame: counted from 0; -1 is the middle one.
    """
    layout = _layout(dataset)
    number = layout.frames // 2 if frame == -1 else frame
    if not 0 <= number < layout.frames:
        raise ImageRefused("unreadable image", f"DICOM: frame {frame} of {layout.frames}")
    content = dataset[layout.keyword]
    decoder = _decoder(dataset, content.is_undefined_length)
    layout = (
        _as_compressed(layout, dataset, number) if decoder.is_encapsulated else _fitted(layout, content.value or b"")
    )
    image = _image(dataset, layout)
    if layout.samples == 3:
        return _colours(image, layout, number, decoder), number
    values = _grey(image, layout, number, decoder)
    return StoredFrame(values, layout.stored, layout.photometric), number


def _decoder(dataset: Any, is_compressed: bool) -> Any:
    """The decoder of the transfer syntax, which is corrected where the pixel data show that it is wrong.

    Compressed pixels have an undefined length and no others do (PS3.5 A.4); tools that decompress a file sometimes
    leave the old syntax in it.
    """
    from pydicom.uid import ExplicitVRLittleEndian

    syntax = dataset.file_meta.TransferSyntaxUID
    if not is_compressed and syntax.is_transfer_syntax and syntax.is_encapsulated:
        syntax = dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    decoder = decoder_for(syntax)
    if is_compressed and decoder.is_native:
        raise ImageRefused("unreadable image", "DICOM: its pixels are compressed and no TransferSyntaxUID says how")
    return decoder


def _layout(dataset: Any) -> _Layout:
    keyword = next((name for name in ("PixelData", *_FLOATS) if name in dataset), None)
    if keyword is None:
        raise ImageRefused("unreadable image", "the DICOM file holds no image")
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    if rows is None or columns is None:
        raise ImageRefused("unreadable image", "DICOM: its header has no usable Rows and Columns")
    check_size(columns, rows)
    frames = integer(dataset, "NumberOfFrames") or 1
    if not 1 <= frames <= MAX_FRAMES:
        raise ImageRefused("unreadable image", "DICOM: the number of frames is not plausible")
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in (*_GREY, *_RGB, *_YBR):
        raise ImageRefused("unreadable image", "DICOM: its PhotometricInterpretation is absent or not one that is read")
    samples = 1 if photometric in _GREY else 3
    if integer(dataset, "SamplesPerPixel") not in (None, samples):
        raise ImageRefused("unreadable image", "DICOM: SamplesPerPixel and PhotometricInterpretation contradict")
    allocated = _FLOATS.get(keyword) or integer(dataset, "BitsAllocated") or integer(dataset, "BitsStored") or 0
    stored = integer(dataset, "BitsStored")
    stored = stored if stored is not None and 1 <= stored <= allocated and keyword == "PixelData" else allocated
    high_bit = integer(dataset, "HighBit")
    is_signed = integer(dataset, "PixelRepresentation") == 1
    return _Layout(
        keyword=keyword,
        rows=rows,
        columns=columns,
        frames=frames,
        samples=samples,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit if high_bit is not None and stored <= high_bit < allocated else stored - 1,
        # Colours and single bits are never signed, whatever the header says.
        signed=int(is_signed and samples == 1 and stored > 1),
        planar=int(integer(dataset, "PlanarConfiguration") == 1),
    )


def _as_compressed(layout: _Layout, dataset: Any, number: int) -> _Layout:
    """The layout with the bits of the compressed frame, when these are more than the header allows.

    The frame must have the size that the header says, before a decoder allocates for it.
    """
    frame = read_codestream(dataset, number, layout.frames)
    if frame is None:
        return layout
    actual, size = (frame.width, frame.height), (layout.columns, layout.rows)
    if actual != size:
        raise ImageRefused("unreadable image", f"DICOM: the compressed frame is {actual}, its header says {size}")
    if frame.bits <= layout.allocated:
        return layout
    return replace(layout, allocated=-(-frame.bits // 8) * 8, stored=frame.bits, high_bit=frame.bits - 1)


def _fitted(layout: _Layout, content: bytes) -> _Layout:
    """The layout that the length of uncompressed pixel data allows, when it contradicts the header.

    Tools write one byte a pixel and leave BitsAllocated at 1 or 16, or unpack 4:2:2 colours and keep the old name.
    """
    if layout.photometric in _YBR and layout.allocated >= 8:
        whole = layout.size * layout.allocated // 8
        is_whole = len(content) >= whole
        layout = replace(layout, photometric="YBR_FULL" if is_whole else "YBR_FULL_422")
        needed = whole if is_whole else whole * 2 // 3
    else:
        layout = replace(layout, allocated=_allocated(layout, content))
        layout = replace(layout, stored=min(layout.stored, layout.allocated))
        layout = replace(layout, high_bit=min(layout.high_bit, layout.allocated - 1))
        needed = -(-layout.size * layout.allocated // 8)
    if len(content) < needed:
        raise ImageRefused(
            "unreadable image", f"DICOM: its header needs {needed} bytes of pixels and it holds {len(content)}"
        )
    return layout


def _allocated(layout: _Layout, content: bytes) -> int:
    length = len(content)
    fitting = [bits for bits in (1, 8, 16, 32, 64) if length - (-(-layout.size * bits // 8)) in (0, 1)]
    declared = layout.allocated
    is_valid = declared in (1, 8, 16, 32, 64)
    if is_valid and (declared in fitting or not fitting):
        return declared
    if declared == 1 and 8 in fitting and not any(content.translate(None, b"\x00\x01\xff")):
        return 8
    is_short = length < layout.size * declared // 8
    if fitting and fitting[0] >= min(layout.stored, 64) and (is_short or not is_valid):
        return fitting[0]
    if not is_valid:
        raise ImageRefused("unreadable image", "DICOM: its BitsAllocated is absent or not 1, 8, 16, 32 or 64")
    return declared


def _image(dataset: Any, layout: _Layout) -> Any:
    """A data set with the pixels and the corrected elements that describe them, and no others."""
    from pydicom.dataset import Dataset

    image = Dataset()
    image.file_meta = dataset.file_meta
    image.Rows, image.Columns, image.NumberOfFrames = layout.rows, layout.columns, layout.frames
    image.SamplesPerPixel, image.PhotometricInterpretation = layout.samples, layout.photometric
    image.BitsAllocated = layout.allocated
    if layout.keyword == "PixelData":
        image.BitsStored, image.HighBit, image.PixelRepresentation = layout.stored, layout.stored - 1, layout.signed
    if layout.samples == 3:
        image.PlanarConfiguration = layout.planar
    for name in (layout.keyword, "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in dataset:
            image.add(dataset[name])
    return image


def _grey(image: Any, layout: _Layout, number: int, decoder: Any) -> NDArray[Any]:
    if layout.allocated == 1 and decoder.is_native:
        return _unpacked(image, layout, number, decoder.UID.is_little_endian)
    shift = layout.high_bit + 1 - layout.stored
    if not shift or layout.keyword != "PixelData":
        return np.asarray(decode_frame(decoder, image, number)[0])
    # The whole words are read first, because HighBit may be wrong about where the values are in them.
    image.BitsStored = layout.allocated
    words = np.asarray(decode_frame(decoder, image, number)[0])
    if (words & ((1 << shift) - 1)).any() and _fits(words, layout):
        shift = 0
    unused = layout.allocated - layout.stored - shift
    return np.asarray((words << unused) >> (unused + shift))


def _fits(words: NDArray[Any], layout: _Layout) -> bool:
    """Whether every whole word fits into BitsStored bits, which shows that HighBit is wrong."""
    bits = layout.stored - layout.signed
    return bool((words < 1 << bits).all() and (words >= -(1 << bits)).all())


def _unpacked(image: Any, layout: _Layout, number: int, is_little: bool) -> NDArray[np.uint8]:
    """One bit a pixel: frames follow each other without padding, so one may begin inside a byte."""
    content = np.frombuffer(image.PixelData, np.uint8)
    if not is_little and image["PixelData"].VR == "OW":
        content = content[: len(content) // 2 * 2].reshape(-1, 2)[:, ::-1].ravel()
    size = layout.rows * layout.columns
    first = number * size // 8
    bits = np.unpackbits(content[first : first + size // 8 + 2], bitorder="little")
    return bits[number * size - first * 8 :][:size].reshape(layout.rows, layout.columns)


def _colours(image: Any, layout: _Layout, number: int, decoder: Any) -> StoredFrame:
    from pydicom.pixels.processing import convert_color_space

    is_deep = layout.allocated > 8
    values, properties = decode_frame(decoder, image, number, raw=is_deep)
    values = np.asarray(values)
    if values.dtype != np.uint8 or layout.stored < 8:
        values = to_8_bits(values, bits_held(values, layout.stored))
        if str(properties["photometric_interpretation"]) in _YBR:
            values = convert_color_space(values, "YBR_FULL", "RGB")
    return StoredFrame(values, 8, "RGB")
