"""Files whose header is empty, malformed or contradicts the pixels give the picture of their well-formed neighbour."""

from dataclasses import replace

import numpy as np
import pytest
import raw_dicom
from dicom_cases import COLUMNS, DEPTHS, ROWS, displays, grey_elements, table_item, values_of
from dicom_oracle import Display, Lookup, grey
from raw_dicom import Typed, dicom_file

from gapless.images.pixels import ImageRefused, load_image

VALUES = values_of(12, 0)
WINDOW = {"WindowCenter": "1800", "WindowWidth": "2500"}
SHOWN = Display(window=(1800.0, 2500.0, "LINEAR"))
SYNTAXES = [raw_dicom.IMPLICIT, raw_dicom.EXPLICIT, raw_dicom.BIG]


def assert_shows(elements, display, values=VALUES, bits=12, syntax=raw_dicom.EXPLICIT, **more):
    picture = load_image(dicom_file({**grey_elements(values, bits), **elements}, syntax, **more))
    assert picture.tolist() == grey(values, bits, display, False).tolist()


# ---- empty and malformed elements -----------------------------------------------------------------------------------

EMPTY = {
    "empty slope and intercept": {"RescaleSlope": "", "RescaleIntercept": ""},
    "empty intercept": {"RescaleSlope": "1", "RescaleIntercept": ""},
    "empty slope": {"RescaleSlope": "", "RescaleIntercept": "0"},
    "only spaces": {"RescaleSlope": "  ", "RescaleIntercept": "  "},
    "a decimal comma": {"RescaleSlope": "2,5", "RescaleIntercept": "-100,0"},
    "words": {"RescaleSlope": "UNKNOWN", "RescaleIntercept": "N/A"},
    "not a number": {"RescaleSlope": "nan", "RescaleIntercept": "inf"},
    "a slope of zero": {"RescaleSlope": "0", "RescaleIntercept": "0"},
    "an empty modality sequence": {"ModalityLUTSequence": []},
    "an empty item in the modality sequence": {"ModalityLUTSequence": [{}]},
    "a modality table without data": {"ModalityLUTSequence": [{"LUTDescriptor": [4096, 0, 16]}]},
    "an empty VOI sequence": {"VOILUTSequence": []},
    "a VOI item with only an explanation": {"VOILUTSequence": [{"LUTExplanation": "NORMAL"}]},
    "a VOI item with an empty table": {"VOILUTSequence": [{"LUTDescriptor": Typed("SS", b""), "LUTData": b""}]},
    "a VOI table without a descriptor": {"VOILUTSequence": [{"LUTData": np.arange(9, dtype=np.uint16)}]},
    "an empty padding value": {"PixelPaddingValue": b""},
    "an empty high bit": {"HighBit": b""},
    "no high bit": {"HighBit": None},
    "an empty number of frames": {"NumberOfFrames": ""},
    "zero frames": {"NumberOfFrames": "0"},
    "no samples per pixel": {"SamplesPerPixel": None},
    "no sign": {"PixelRepresentation": None},
    "a photometric interpretation in small letters": {"PhotometricInterpretation": "monochrome2"},
}


@pytest.mark.parametrize("name", list(EMPTY))
def test_an_element_without_a_value_is_an_absent_one(name):
    for syntax in SYNTAXES:
        assert_shows(EMPTY[name], Display(), syntax=syntax)
        assert_shows({**WINDOW, **EMPTY[name]}, SHOWN, syntax=syntax)


def test_the_part_of_a_rescale_that_is_there_counts():
    assert_shows({"RescaleSlope": "", "RescaleIntercept": "-1000", **WINDOW}, replace(SHOWN, slope=1, intercept=-1000))
    assert_shows({"RescaleSlope": "2", "RescaleIntercept": "", **WINDOW}, replace(SHOWN, slope=2, intercept=0))


@pytest.mark.parametrize(
    ("centre", "width", "shown"),
    [
        ("\\1800", "\\2500", SHOWN),
        ("1800\\", "2500\\", SHOWN),
        ("5\\1800", "0\\2500", SHOWN),
        ("nan\\1800", "100\\2500", SHOWN),
        ("300,5\\1800", "100\\2500", SHOWN),
        ("", "", Display()),
        ("1800", "", Display()),
        ("1800,0", "2500,0", Display()),
        ("1800", "0", Display()),
        ("1800", "-2500", Display()),
        ("1800", "0.5", Display()),
        ("1800", "inf", Display()),
    ],
)
def test_the_first_window_with_numbers_counts(centre, width, shown):
    assert_shows({"WindowCenter": centre, "WindowWidth": width}, shown)


def test_an_unknown_function_of_the_window_is_linear():
    for function in ("", "FANCY", "linear"):
        assert_shows({**WINDOW, "VOILUTFunction": function}, SHOWN)


def test_an_empty_element_of_a_frame_does_not_hide_the_one_of_the_file():
    import io

    import pydicom
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    dataset = pydicom.dcmread(io.BytesIO(dicom_file({**grey_elements(VALUES, 12), **WINDOW})))
    for values in ({"WindowCenter": None, "WindowWidth": None}, {}):
        window, group = Dataset(), Dataset()
        for name, value in values.items():
            setattr(window, name, value)
        group.FrameVOILUTSequence = Sequence([window])
        dataset.PerFrameFunctionalGroupsSequence = Sequence([group])
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=False)
        assert load_image(stream.getvalue()).tolist() == grey(VALUES, 12, SHOWN, False).tolist()


# ---- bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "signed"), [depth for depth in DEPTHS if depth[0] not in (8, 16)])
def test_values_in_the_high_bits_of_their_container(bits, signed):
    """HighBit above BitsStored - 1; and the same header over values that lie in the low bits."""
    values = values_of(bits, signed)
    container = values.dtype.itemsize * 8
    for name, (elements, display) in displays(values).items():
        for high_bit in {container - 1, bits}:
            high = (values << (high_bit + 1 - bits)).astype(values.dtype)
            for pixels in (high, values):
                pixels = pixels if container > 8 else Typed("OB", pixels)
                every = {**grey_elements(values, bits), **elements, "HighBit": high_bit, "PixelData": pixels}
                picture = load_image(dicom_file(every))
                assert picture.tolist() == grey(values, bits, display, False).tolist(), (name, high_bit)


def test_bits_that_cannot_be_are_those_of_the_container():
    for bits in (0, 17, 60000, None, b""):
        assert_shows({"BitsStored": bits, "HighBit": 15}, Display())


@pytest.mark.parametrize("declared", [1, 8, 16])
def test_one_byte_a_pixel_whatever_is_allocated(declared):
    values = np.random.default_rng(3).integers(0, 2, (ROWS, COLUMNS)).astype(np.uint8)
    assert_shows({"BitsAllocated": declared}, Display(), values, 1)


def test_one_bit_is_never_signed():
    values = np.random.default_rng(5).integers(0, 2, (ROWS, COLUMNS)).astype(np.uint8)
    assert_shows({"PixelRepresentation": 1}, Display(), values, 1)


def test_bits_that_are_packed_though_a_byte_is_announced():
    values = np.random.default_rng(4).integers(0, 2, (ROWS, COLUMNS)).astype(np.uint8)
    packed = np.packbits(values.ravel(), bitorder="little").tobytes()
    assert_shows({"PixelData": packed}, Display(), values, 1)


def test_pixels_that_end_too_soon_are_refused_and_not_filled_up():
    for length in (0, 7, 117):
        elements = {**grey_elements(VALUES, 12), "PixelData": VALUES.tobytes()[:length]}
        with pytest.raises(ImageRefused, match=r"its header needs 120 bytes of pixels"):
            load_image(dicom_file(elements))


# ---- padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signed", "padding", "typed"),
    [
        (1, -2000, Typed("SS", -2000)),
        (1, -2000, Typed("US", 63536)),
        (1, -2000, Typed("US", 2096)),  # -2000 of 12 bits without its sign
        (0, 63536, Typed("US", 63536)),
        (0, 63536, Typed("SS", -2000)),
    ],
)
@pytest.mark.parametrize("limit", [0, 10])
def test_padding_counts_whatever_its_sign_is_written_as(signed, padding, typed, limit):
    bits = 12 if signed else 16
    values = values_of(bits, signed) // 4
    values[:, 0], values[:, 1] = padding, padding + limit
    elements = {"PixelPaddingValue": typed}
    if limit:
        elements["PixelPaddingRangeLimit"] = Typed(typed.vr, typed.value + limit)
    assert_shows(elements, Display(padding=(padding, padding + limit)), values, bits)


def test_padding_that_no_pixel_has_changes_nothing():
    for typed in (Typed("US", 63536), Typed("SS", -5), Typed("US", 4000)):
        values = np.minimum(VALUES, 3000)
        assert_shows({"PixelPaddingValue": typed}, Display(), values)


# ---- lookup tables --------------------------------------------------------------------------------------------------

RISING = tuple(n * 4095 // 299 for n in range(300))


def voi(lookup, vr="US", **changed):
    return {"VOILUTSequence": [{**table_item(lookup, vr), **changed}]}


@pytest.mark.parametrize("claimed", [8, 14, 15, 16, 0, 255])
def test_a_table_of_12_bits_whatever_it_claims(claimed):
    lookup = Lookup(RISING, 1000, 12)
    descriptor = Typed("US", [300, 1000, claimed])
    assert_shows(voi(lookup, LUTDescriptor=descriptor), Display(voi=lookup))


@pytest.mark.parametrize("held", [8, 10, 12, 14])
def test_a_table_that_claims_16_bits_and_holds_fewer(held):
    lookup = Lookup(tuple(((1 << held) - 1) * n // 299 for n in range(300)), 1000, held)
    assert_shows(voi(replace(lookup, bits=16)), Display(voi=lookup))


def test_a_dark_table_with_an_exact_header_stays_dark():
    for bits, top in ((12, 3000), (16, 40000), (8, 90)):
        lookup = Lookup(tuple(top * n // 299 for n in range(300)), 1000, bits)
        assert_shows(voi(lookup), Display(voi=lookup))


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_the_first_value_of_a_table_with_the_other_sign(sequence, syntax):
    low = Lookup(RISING, -150, 12)
    name = "voi" if sequence == "VOILUTSequence" else "modality"
    signed = values_of(12, 1) // 8
    assert_shows({sequence: [table_item(low, "US")]}, Display(**{name: low}), signed, syntax=syntax)
    high = Lookup(RISING, 40000, 12)
    unsigned = (values_of(16, 0) // 64 + 39000).astype(np.uint16)
    assert_shows({sequence: [table_item(high, "SS")]}, Display(**{name: high}), unsigned, 16, syntax=syntax)


def test_a_table_after_a_rescale_that_makes_negative_values():
    lookup = Lookup(RISING, -300, 12)
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    for vr in ("US", "SS"):
        assert_shows({**rescale, **voi(lookup, vr)}, Display(slope=1.0, intercept=-1024.0, voi=lookup))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_entries_of_8_bits_in_every_packing(syntax):
    lookup = Lookup(tuple(255 - n * 255 // 298 for n in range(299)), 1000, 8)
    octets = bytes((*lookup.entries, 0))
    if syntax == raw_dicom.BIG:
        octets = bytes(np.frombuffer(octets, np.uint8).reshape(-1, 2)[:, ::-1].ravel())
    words = np.frombuffer(bytes((*lookup.entries, 0)), "<u2").astype(np.uint16)
    for data in (np.array(lookup.entries, np.uint16), octets, Typed("OW", words), Typed("US", words)):
        assert_shows(voi(lookup, LUTData=data), Display(voi=lookup), syntax=syntax)


def test_a_table_that_is_shorter_than_it_says():
    lookup = Lookup(RISING, 1000, 12)
    for count in (0, 301, 4096):
        assert_shows(voi(lookup, LUTDescriptor=[count, 1000, 12]), Display(voi=lookup))


def test_a_table_without_entries_leaves_the_window():
    for broken in ({"LUTDescriptor": [300]}, {"LUTDescriptor": b""}, {"LUTData": b""}):
        assert_shows({**WINDOW, **voi(Lookup(RISING, 1000, 12), **broken)}, SHOWN)


# ---- the file around them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_without_preamble_and_meta_information(syntax):
    body = dicom_file({**grey_elements(VALUES, 12), **WINDOW}, syntax, with_meta=False)
    first = {
        raw_dicom.EXPLICIT: b"\x08\0\x05\0CS\x02\0  ",
        raw_dicom.IMPLICIT: b"\x08\0\x05\0\x02\0\0\0  ",
        raw_dicom.BIG: b"\0\x08\0\x05CS\0\x02  ",
    }[syntax]
    expected = grey(VALUES, 12, SHOWN, False).tolist()
    assert load_image(first + body).tolist() == expected
    if syntax != raw_dicom.BIG:
        assert load_image(b"\0" * 128 + b"DICM" + first + body).tolist() == expected


def test_a_transfer_syntax_that_is_empty_or_missing():
    for syntax in (raw_dicom.EXPLICIT, raw_dicom.IMPLICIT):
        body = b"\x08\0\x05\0" + (b"CS\x02\0  " if syntax == raw_dicom.EXPLICIT else b"\x02\0\0\0  ")
        body += dicom_file({**grey_elements(VALUES, 12), **WINDOW}, syntax, with_meta=False)
        for meta in (b"\x02\0\x10\0UI\0\0", b"\x02\0\x02\0UI\x04\x001.2\0"):
            content = b"\0" * 128 + b"DICM" + meta + body
            assert load_image(content).tolist() == grey(VALUES, 12, SHOWN, False).tolist()


def test_plain_pixels_in_a_file_that_says_they_are_compressed():
    for syntax in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80"):
        assert_shows(WINDOW, SHOWN, syntax=syntax)


def test_compressed_pixels_without_a_transfer_syntax_are_refused_in_a_sentence():
    content = dicom_file(grey_elements(VALUES, 12), raw_dicom.RLE)
    start = content.index(b"\x02\0\x10\0UI")
    end = start + 8 + 20
    with pytest.raises(ImageRefused, match="its pixels are compressed and no TransferSyntaxUID says how"):
        load_image(content[:start] + content[end:])


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"Rows": None}, "no usable Rows and Columns"),
        ({"PhotometricInterpretation": None}, "PhotometricInterpretation is absent"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation is absent or not one that is read"),
        ({"SamplesPerPixel": 3}, "contradict"),
        ({"BitsAllocated": 12, "PixelData": bytes(90)}, "BitsAllocated is absent or not"),
        ({"PixelData": None}, "holds no image"),
    ],
)
def test_what_cannot_be_known_is_refused_in_a_sentence(elements, sentence):
    with pytest.raises(ImageRefused, match=sentence):
        load_image(dicom_file({**grey_elements(VALUES, 12), **elements}))
