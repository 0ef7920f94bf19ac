"""Every grey picture (photometric x bits x sign x transfer syntax x display) against the standard, pixel by pixel."""

import io

import numpy as np
import pytest
import raw_dicom
from dicom_cases import COLUMNS, DEPTHS, ROWS, displays, grey_elements, values_of
from dicom_oracle import Display, grey
from PIL import Image
from raw_dicom import Typed, dicom_file

from gapless.images.pixels import load_image

SYNTAXES = {"implicit": raw_dicom.IMPLICIT, "explicit": raw_dicom.EXPLICIT, "big endian": raw_dicom.BIG}
SYNTAXES |= {"deflated": raw_dicom.DEFLATED, "RLE": raw_dicom.RLE}


def native_rle(elements):
    pixels = elements["PixelData"]
    return {**elements, "PixelData": pixels.value if isinstance(pixels, Typed) else pixels}


def differences(syntax, photometric):
    """[(case, largest difference)] over every depth, sign and display."""
    found = []
    for bits, signed in DEPTHS:
        values = values_of(bits, signed)
        for name, (elements, display) in displays(values).items():
            every = {**grey_elements(values, bits, photometric), **elements}
            every = native_rle(every) if syntax == raw_dicom.RLE else every
            picture = load_image(dicom_file(every, syntax))
            expected = grey(values, bits, display, photometric == "MONOCHROME1")
            found.append((f"{bits} bits, signed {signed}, {name}", picture, expected))
    return found


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", list(SYNTAXES))
def test_grey_is_what_the_standard_says(syntax, photometric):
    cases = differences(SYNTAXES[syntax], photometric)
    assert len(cases) == len(DEPTHS) * 15
    assert [name for name, picture, expected in cases if picture.tolist() != expected.tolist()] == []


def test_the_matrix_sees_a_wrong_step():
    """A control: the oracle with one step changed disagrees with every file that has this step."""
    values = values_of(12, 0)
    elements, display = displays(values)["window"]
    picture = load_image(dicom_file({**grey_elements(values, 12), **elements}))
    centre, width, function = display.window
    for wrong in (Display(window=(centre + 2, width, function)), Display(window=(centre, width + 9, function))):
        assert picture.tolist() != grey(values, 12, wrong, False).tolist()
    assert picture.tolist() != grey(values, 12, display, True).tolist()


def test_unused_bits_are_not_read():
    """PS3.5 section 8.1.1: nothing may be assumed of them; overlays stood there."""
    values = values_of(12, 0)
    for junk in (0x8000, 0x1000):
        elements = grey_elements(values, 12)
        elements["PixelData"] = values | np.where(np.arange(COLUMNS) % 2, junk, 0).astype(np.uint16)
        assert load_image(dicom_file(elements)).tolist() == grey(values, 12, Display(), False).tolist()
    signed = values_of(12, 1)
    elements = grey_elements(signed, 12)
    elements["PixelData"] = signed & 0x0FFF  # negative numbers of 12 bits whose sign is not extended
    assert load_image(dicom_file(elements)).tolist() == grey(signed, 12, Display(), False).tolist()


@pytest.mark.parametrize(("rows", "columns"), [(4, 8), (3, 5), (1, 3), (7, 9)])
@pytest.mark.parametrize("big", [False, True])
def test_one_bit_a_pixel_whatever_the_size(rows, columns, big):
    """Frames follow each other without padding, so most of them begin inside a byte."""
    frames = np.random.default_rng(rows).integers(0, 2, (5, rows, columns)).astype(np.uint8)
    packed = np.packbits(frames.ravel(), bitorder="little")
    packed = np.append(packed, np.zeros(len(packed) % 2, np.uint8))
    words = packed.reshape(-1, 2)[:, ::-1].ravel() if big else packed
    elements = {**grey_elements(frames[0], 1), "BitsAllocated": 1, "NumberOfFrames": "5", "PixelData": words.tobytes()}
    content = dicom_file(elements, raw_dicom.BIG if big else raw_dicom.EXPLICIT)
    for number in range(5):
        assert load_image(content, frame=number).tolist() == (frames[number] * 255).tolist()


@pytest.mark.parametrize("value", [0, 1])
def test_one_bit_that_is_everywhere_alike(value):
    values = np.full((ROWS, COLUMNS), value, np.uint8)
    assert load_image(dicom_file(grey_elements(values, 1))).tolist() == (values * 255).tolist()


def test_padding_is_not_counted_and_a_range_of_it_neither():
    values = values_of(12, 1)
    values[:, 0], values[:, 1] = -2000, -1990
    for limit, last in ((None, -2000), (-1990, -1990)):
        elements = grey_elements(values, 12) | {"PixelPaddingValue": Typed("SS", -2000)}
        elements["PixelPaddingRangeLimit"] = None if limit is None else Typed("SS", limit)
        display = Display(padding=(-2000, last))
        assert load_image(dicom_file(elements)).tolist() == grey(values, 12, display, False).tolist()


def test_thirty_two_bits_and_floats_span_their_range():
    wide = np.random.default_rng(1).integers(0, 2**32, (ROWS, COLUMNS)).astype(np.uint32)
    elements = grey_elements(wide, 32)
    assert load_image(dicom_file(elements)).tolist() == grey(wide.astype(np.int64), 32, Display(), False).tolist()
    floats = np.random.default_rng(2).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    keep = ("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns")
    elements = {name: elements[name] for name in keep} | {"BitsAllocated": 32, "FloatPixelData": floats}
    expected = grey(floats, 32, Display(), False)
    assert load_image(dicom_file(elements)).tolist() == expected.tolist()
    window = Display(window=(0.2, 1.5, "LINEAR"))
    elements |= {"WindowCenter": "0.2", "WindowWidth": "1.5"}
    assert load_image(dicom_file(elements)).tolist() == grey(floats, 32, window, False).tolist()


@pytest.mark.parametrize("bits", [8, 16])
def test_jpeg_2000_holds_the_same_picture(bits):
    values = values_of(bits, 0)
    codestream = io.BytesIO()
    Image.fromarray(values).save(codestream, "JPEG2000", no_jp2=True)
    from pydicom.encaps import encapsulate

    content = encapsulate([codestream.getvalue()])
    for name, (elements, display) in displays(values).items():
        every = {**grey_elements(values, bits), **elements, "PixelData": None}
        body = raw_dicom.data_set(every) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + content
        file = dicom_file({}, "1.2.840.10008.1.2.4.90") + body + b"\xfe\xff\xdd\xe0\0\0\0\0"
        assert load_image(file).tolist() == grey(values, bits, display, False).tolist(), name
