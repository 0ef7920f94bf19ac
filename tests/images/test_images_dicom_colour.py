"""Colours and palettes of DICOM, well-formed and not, against the standard (PS3.3 C.7.6.3.1.2 and C.7.6.3.1.5)."""

import numpy as np
import pytest
import raw_dicom
from dicom_oracle import rgb_of_ybr
from raw_dicom import Typed, dicom_file

from gapless.images.pixels import ImageRefused, load_image

ROWS, COLUMNS = 4, 6
COLOURS = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3)).astype(np.uint8)
COLOURS[0, 0] = 255
SYNTAXES = [raw_dicom.IMPLICIT, raw_dicom.EXPLICIT, raw_dicom.BIG]
CHANNELS = ("Red", "Green", "Blue")


def colour_elements(values, bits=None, photometric="RGB", planar=0):
    allocated = values.dtype.itemsize * 8
    pixels = values.transpose(2, 0, 1) if planar else values
    pixels = np.ascontiguousarray(pixels)
    return {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": photometric,
        "PlanarConfiguration": planar,
        "Rows": ROWS,
        "Columns": COLUMNS,
        "BitsAllocated": allocated,
        "BitsStored": bits or allocated,
        "HighBit": (bits or allocated) - 1,
        "PixelRepresentation": 0,
        "PixelData": pixels if allocated > 8 else Typed("OB", pixels),
    }


def assert_colours(elements, expected, syntax=raw_dicom.EXPLICIT):
    assert load_image(dicom_file(elements, syntax)).tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("planar", [0, 1])
def test_exact_headers_keep_the_high_byte(syntax, planar):
    assert_colours(colour_elements(COLOURS, planar=planar), COLOURS, syntax)
    sixteen = np.random.default_rng(1).integers(0, 65536, COLOURS.shape).astype(np.uint16)
    assert_colours(colour_elements(sixteen, planar=planar), sixteen >> 8, syntax)
    assert_colours(colour_elements(sixteen >> 4, 12, planar=planar), sixteen >> 8, syntax)


@pytest.mark.parametrize("held", [8, 10, 12, 14])
def test_colours_that_claim_16_bits_and_hold_fewer(held):
    values = COLOURS.astype(np.uint16) << (held - 8)
    assert_colours(colour_elements(values), COLOURS)


def test_dark_colours_with_an_exact_header_stay_dark():
    for dark, bits in ((COLOURS // 16, 8), ((COLOURS // 16).astype(np.uint16) << 8, 16)):
        assert_colours(colour_elements(dark, bits), COLOURS // 16)


def test_colours_of_fewer_than_8_bits_span_them():
    six = COLOURS >> 2
    assert_colours(colour_elements(six, 6), np.floor(six / 63 * 255 + 0.5).astype(np.uint8))


@pytest.mark.parametrize("held", [8, 16])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_luminance_and_chrominance(syntax, held):
    expected = [[rgb_of_ybr(*(int(x) for x in pixel)) for pixel in row] for row in COLOURS]
    values = COLOURS if held == 8 else COLOURS.astype(np.uint16) * 257
    for planar in (0, 1):
        assert_colours(colour_elements(values, photometric="YBR_FULL", planar=planar), expected, syntax)


def test_chrominance_of_every_second_pixel_whatever_it_is_called():
    halved = COLOURS.copy()
    halved[:, 1::2, 1:] = halved[:, ::2, 1:]
    expected = [[rgb_of_ybr(*(int(x) for x in pixel)) for pixel in row] for row in halved]
    pairs = halved.reshape(-1, 2, 3)
    stored = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1).tobytes()
    for name in ("YBR_FULL_422", "YBR_FULL"):
        elements = {**colour_elements(COLOURS, photometric=name), "PixelData": Typed("OB", stored)}
        assert_colours(elements, expected)
    assert_colours(colour_elements(halved, photometric="YBR_FULL_422"), expected)


def test_missing_or_wrong_elements_of_colours():
    wrong = ({"PlanarConfiguration": None}, {"PlanarConfiguration": b""}, {"SamplesPerPixel": b""})
    for elements in (*wrong, {"PixelRepresentation": 1}, {"BitsStored": 0}, {"PhotometricInterpretation": "YBR_RCT"}):
        assert_colours({**colour_elements(COLOURS), **elements}, COLOURS)
    with pytest.raises(ImageRefused, match="needs 72 bytes of pixels and it holds 70"):
        load_image(dicom_file({**colour_elements(COLOURS), "PixelData": COLOURS.tobytes()[:70]}))


# ---- palettes -------------------------------------------------------------------------------------------------------

STORED = np.random.default_rng(2).integers(90, 120, (ROWS, COLUMNS)).astype(np.uint8)
PALETTE = np.random.default_rng(3).integers(0, 256, (20, 3)).astype(np.uint8)
PALETTE[3] = 255
FIRST = 95
SHOWN = PALETTE[np.clip(STORED.astype(int) - FIRST, 0, 19)]


def palette_elements(entries, bits=16, first=FIRST, stored=STORED, count=20, vr="US"):
    """A palette image; `entries` are three arrays of words, or three byte strings."""
    elements = {**colour_elements(COLOURS), "SamplesPerPixel": 1, "PhotometricInterpretation": "PALETTE COLOR"}
    elements |= {"PlanarConfiguration": None, "PixelData": Typed("OB", stored)}
    elements["PixelRepresentation"] = int(stored.dtype.kind == "i")
    for channel, values in zip(CHANNELS, entries, strict=True):
        elements[f"{channel}PaletteColorLookupTableDescriptor"] = Typed(vr, [count, first, bits])
        elements[f"{channel}PaletteColorLookupTableData"] = values
    return elements


def words(factor=1, palette=PALETTE):
    return [np.ascontiguousarray(palette[:, channel]).astype(np.uint16) * factor for channel in range(3)]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_palettes_of_every_width(syntax):
    for factor in (256, 257):
        assert_colours(palette_elements(words(factor)), SHOWN, syntax)
    octets = [bytes(PALETTE[:, channel]) for channel in range(3)]
    if syntax == raw_dicom.BIG:
        octets = [bytes(np.frombuffer(entry, np.uint8).reshape(-1, 2)[:, ::-1].ravel()) for entry in octets]
    for bits in (8, 16):
        assert_colours(palette_elements(octets, bits), SHOWN, syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_palettes_whose_bits_are_not_those_of_their_values(syntax):
    for factor, bits in ((1, 8), (1, 16), (16, 16), (256, 8), (257, 8), (16, 12), (4, 10), (1, 0), (256, 0)):
        assert_colours(palette_elements(words(factor), bits), SHOWN, syntax)


def test_a_dark_palette_with_an_exact_header_stays_dark():
    for factor in (256, 257):
        expected = (PALETTE // 8)[np.clip(STORED.astype(int) - FIRST, 0, 19)]
        assert_colours(palette_elements(words(factor, PALETTE // 8)), expected)


def test_a_palette_that_begins_below_zero_whatever_its_sign_is_written_as():
    stored = (STORED.astype(int) - 100).astype(np.int8)
    for vr, first in (("SS", FIRST - 100), ("US", FIRST - 100 + 65536)):
        assert_colours(palette_elements(words(256), first=first, stored=stored, vr=vr), SHOWN)


def test_a_palette_that_is_shorter_than_it_says():
    assert_colours(palette_elements(words(256), count=0), SHOWN)
    assert_colours(palette_elements(words(256), count=256), SHOWN)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_palette_in_segments(syntax):
    """C.7.9.2: discrete entries (0), then a line from the last entry (1)."""
    elements = palette_elements(words(256), count=12)
    for channel in CHANNELS:
        elements[f"{channel}PaletteColorLookupTableData"] = None
        segments = np.array([0, 2, 0, 10 * 256, 1, 10, 110 * 256], np.uint16)
        elements[f"Segmented{channel}PaletteColorLookupTableData"] = segments
    grey = np.array([0, *range(10, 120, 10)])[np.clip(STORED.astype(int) - FIRST, 0, 11)]
    assert_colours(elements, np.stack([grey] * 3, axis=-1), syntax)


def test_a_palette_image_without_a_palette_is_refused_in_a_sentence():
    for name in ("RedPaletteColorLookupTableData", "BluePaletteColorLookupTableDescriptor"):
        for empty in (None, b""):
            with pytest.raises(ImageRefused, match="without a usable palette"):
                load_image(dicom_file({**palette_elements(words(256)), name: empty}))
