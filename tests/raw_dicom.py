"""Writes DICOM byte by byte, without pydicom: what a library would correct or refuse to write can be written too."""

import struct
import zlib

import numpy as np

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
LONG = ("OB", "OW", "OF", "OD", "SQ", "UN", "UT")
WORDS = {"US": "H", "SS": "h", "UL": "I"}

TAGS = {
    "SamplesPerPixel": (0x0028, 0x0002, "US"),
    "PhotometricInterpretation": (0x0028, 0x0004, "CS"),
    "PlanarConfiguration": (0x0028, 0x0006, "US"),
    "NumberOfFrames": (0x0028, 0x0008, "IS"),
    "Rows": (0x0028, 0x0010, "US"),
    "Columns": (0x0028, 0x0011, "US"),
    "BitsAllocated": (0x0028, 0x0100, "US"),
    "BitsStored": (0x0028, 0x0101, "US"),
    "HighBit": (0x0028, 0x0102, "US"),
    "PixelRepresentation": (0x0028, 0x0103, "US"),
    "PixelPaddingValue": (0x0028, 0x0120, "US"),
    "PixelPaddingRangeLimit": (0x0028, 0x0121, "US"),
    "WindowCenter": (0x0028, 0x1050, "DS"),
    "WindowWidth": (0x0028, 0x1051, "DS"),
    "RescaleIntercept": (0x0028, 0x1052, "DS"),
    "RescaleSlope": (0x0028, 0x1053, "DS"),
    "VOILUTFunction": (0x0028, 0x1056, "CS"),
    "RedPaletteColorLookupTableDescriptor": (0x0028, 0x1101, "US"),
    "GreenPaletteColorLookupTableDescriptor": (0x0028, 0x1102, "US"),
    "BluePaletteColorLookupTableDescriptor": (0x0028, 0x1103, "US"),
    "RedPaletteColorLookupTableData": (0x0028, 0x1201, "OW"),
    "GreenPaletteColorLookupTableData": (0x0028, 0x1202, "OW"),
    "BluePaletteColorLookupTableData": (0x0028, 0x1203, "OW"),
    "SegmentedRedPaletteColorLookupTableData": (0x0028, 0x1221, "OW"),
    "SegmentedGreenPaletteColorLookupTableData": (0x0028, 0x1222, "OW"),
    "SegmentedBluePaletteColorLookupTableData": (0x0028, 0x1223, "OW"),
    "ModalityLUTSequence": (0x0028, 0x3000, "SQ"),
    "LUTDescriptor": (0x0028, 0x3002, "US"),
    "LUTExplanation": (0x0028, 0x3003, "LO"),
    "LUTData": (0x0028, 0x3006, "OW"),
    "VOILUTSequence": (0x0028, 0x3010, "SQ"),
    "PixelData": (0x7FE0, 0x0010, "OW"),
    "FloatPixelData": (0x7FE0, 0x0008, "OF"),
    "OverlayBitPosition": (0x6000, 0x0102, "US"),
}


class Typed:
    """A value with a VR of its own, right or wrong."""

    def __init__(self, vr, value):
        self.vr, self.value = vr, value


def element(name, value, order, is_implicit):
    group, number, vr = TAGS[name]
    if isinstance(value, Typed):
        vr, value = value.vr, value.value
    if vr == "SQ":
        content = b"".join(
            struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(item)) + item
            for item in (data_set(item, order, is_implicit) for item in value)
        )
    elif isinstance(value, np.ndarray):
        content = value.astype(value.dtype.newbyteorder(order)).tobytes()
    elif isinstance(value, bytes):
        content = value
    elif vr in WORDS:
        values = value if isinstance(value, (list, tuple)) else [value]
        content = struct.pack(f"{order}{len(values)}{WORDS[vr]}", *values)
    else:
        content = str(value).encode("ascii")
    content += (b"\0" if vr in LONG else b" ") * (len(content) % 2)
    head = struct.pack(f"{order}HH", group, number)
    if is_implicit:
        return head + struct.pack(f"{order}I", len(content)) + content
    length = struct.pack(f"{order}HI", 0, len(content)) if vr in LONG else struct.pack(f"{order}H", len(content))
    return head + vr.encode() + length + content


def data_set(elements, order="<", is_implicit=False):
    names = sorted((name for name in elements if elements[name] is not None), key=lambda name: TAGS[name][:2])
    return b"".join(element(name, elements[name], order, is_implicit) for name in names)


def dicom_file(elements, syntax=EXPLICIT, with_meta=True):
    """The bytes of a file with these elements; pixels are an array, or bytes as they stand in the file."""
    body = data_set(elements, ">" if syntax == BIG else "<", syntax == IMPLICIT)
    if syntax == RLE:
        body = data_set({**elements, "PixelData": None}) + rle_pixels(elements["PixelData"])
    if syntax == DEFLATED:
        squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = squeeze.compress(body) + squeeze.flush()
    if not with_meta:
        return body
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    return b"\0" * 128 + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid + body


def rle_pixels(pixels):
    """One frame by PS3.5 annex G, as literal runs: a segment for each byte of a sample, the high byte first."""
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., channel] for channel in range(3)]
    segments = []
    for plane in planes:
        octets = np.ascontiguousarray(plane).view(np.uint8).reshape(plane.size, -1)
        for place in reversed(range(octets.shape[1])):
            flat = octets[:, place].tobytes()
            runs = (flat[at : at + 128] for at in range(0, len(flat), 128))
            segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
            segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = np.cumsum([64] + [len(segment) for segment in segments[:-1]])
    frame = struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + empty + item + end
