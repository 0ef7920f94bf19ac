"""DICOM pixels against values worked out from the standard by hand; and no header value in any output."""

import io
import logging
import math
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_samples import dicom_bytes
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from gapless.images.dicom import windowed
from gapless.images.dicom_codecs import codestream
from gapless.images.dicom_header import read_header
from gapless.images.pixels import ImageRefused, load_image

STORED = np.array([[0, 1000, 1024], [1064, 1100, 4095]], np.uint16)
BUNDLED = Path(pydicom.__file__).parent / "data/test_files"
SECRET = "ZZSECRET"


def assert_pixels(content, expected, **options):
    assert load_image(content, **options).tolist() == np.asarray(expected).tolist()


def window_by_hand(value, centre, width):
    """PS3.3 C.11.2.1.2.1, a line at a time, to 8 bits."""
    if value <= centre - 0.5 - (width - 1) / 2:
        return 0
    if value > centre - 0.5 + (width - 1) / 2:
        return 255
    return math.floor(((value - (centre - 0.5)) / (width - 1) + 0.5) * 255 + 0.5)


def test_slope_intercept_and_window():
    content = dicom_bytes(STORED, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert_pixels(content, [[window_by_hand(int(v) - 1024, 40, 400) for v in row] for row in STORED])


def test_monochrome1_is_inverted_after_the_window():
    elements = {"RescaleSlope": 2, "RescaleIntercept": -10, "WindowCenter": 2000, "WindowWidth": 1500}
    plain = load_image(dicom_bytes(STORED, **elements))
    assert_pixels(dicom_bytes(STORED, PhotometricInterpretation="MONOCHROME1", **elements), 255 - plain)


def test_signed_pixels():
    stored = np.array([[-1000, -160, 40], [239, 240, 3000]], np.int16)
    expected = [[window_by_hand(int(v), 40, 400) for v in row] for row in stored]
    assert_pixels(dicom_bytes(stored, WindowCenter=40, WindowWidth=400), expected)


def test_the_first_of_several_windows_counts():
    elements = {
        "WindowCenter": ["40", "-600"],
        "WindowWidth": ["400", "1500"],
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
    }
    assert_pixels(
        dicom_bytes(STORED, **elements),
        load_image(dicom_bytes(STORED, **{**elements, "WindowCenter": 40, "WindowWidth": 400})),
    )


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(function):
    """pydicom gives stored units of 12 bits, ours a share: an independent implementation of one formula."""
    from pydicom.pixels.processing import apply_windowing

    values = np.arange(0, 4096, 7, dtype=np.uint16)
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 1500, 1000, function
    expected = apply_windowing(values, dataset) / 4095
    assert np.abs(windowed(values, 1500, 1000, function) - expected).max() < 1e-12


def test_eight_plain_bits_stay():
    stored = np.array([[0, 7, 255]], np.uint8)
    assert_pixels(dicom_bytes(stored), stored)
    assert_pixels(dicom_bytes(stored, PhotometricInterpretation="MONOCHROME1"), 255 - stored)


def test_without_a_window_the_range_is_used_and_padding_is_not():
    stored = np.array([[-2000, 0, 100, 200]], np.int16)
    assert_pixels(dicom_bytes(stored, PixelPaddingValue=-2000), [[0, 0, 128, 255]])
    assert_pixels(dicom_bytes(stored), [[0, 232, 243, 255]])


def test_an_unusable_window_is_ignored():
    for width in (0, -5):
        content = dicom_bytes(np.array([[0, 50, 100]], np.uint16), WindowCenter=50, WindowWidth=width)
        assert_pixels(content, [[0, 128, 255]])


def test_a_voi_table_wins_over_nothing():
    table = Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.LUTData = [0, 65535, 257, 25700]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    content = dicom_bytes(np.array([[0, 1, 2, 3]], np.uint16), VOILUTSequence=Sequence([table]))
    assert_pixels(content, [[0, 255, 1, 100]])


def test_functional_groups_of_an_enhanced_file_count_per_frame():
    stored = np.array([[[0, 100]], [[0, 100]], [[0, 100]]], np.uint16)

    def group(centre):
        window = Dataset()
        window.WindowCenter, window.WindowWidth = centre, 100
        frame = Dataset()
        frame.FrameVOILUTSequence = Sequence([window])
        return frame

    frames = Sequence([group(0.5), group(50.5), group(500)])
    content = dicom_bytes(stored, frames=3, PerFrameFunctionalGroupsSequence=frames)
    for number, centre in enumerate((0.5, 50.5, 500)):
        assert_pixels(content, [[window_by_hand(v, centre, 100) for v in (0, 100)]], frame=number)


def test_frames_are_chosen_by_number():
    stored = np.array([[[10, 20]], [[30, 40]], [[50, 60]]], np.uint8)
    content = dicom_bytes(stored, frames=3)
    assert_pixels(content, [[10, 20]])
    assert_pixels(content, [[50, 60]], frame=2)
    assert_pixels(content, [[30, 40]], frame=-1)
    with pytest.raises(ImageRefused, match="frame 3 of 3"):
        load_image(content, frame=3)


def test_colour_of_8_and_16_bits():
    colour = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14
    assert_pixels(dicom_bytes(colour), colour)
    assert_pixels(dicom_bytes(colour.astype(np.uint16) * 257), colour)
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1)).reshape(2, 3, 3)
    assert_pixels(dicom_bytes(planes, PlanarConfiguration=1), colour)


def test_a_palette_gives_its_colours():
    elements = {}
    for name, values in (("Red", [10, 200]), ("Green", [20, 100]), ("Blue", [30, 0])):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = np.array(values, np.uint16).__mul__(256).tobytes()
    content = dicom_bytes(np.array([[0, 1]], np.uint8), PhotometricInterpretation="PALETTE COLOR", **elements)
    assert_pixels(content, [[[10, 20, 30], [200, 100, 0]]])


@pytest.mark.parametrize("codec", [JPEG2000Lossless, RLELossless])
def test_lossless_compression_changes_nothing(codec):
    stored = (np.random.default_rng(0).integers(0, 4096, (32, 40))).astype(np.uint16)
    elements = {"WindowCenter": 2000, "WindowWidth": 3000}
    assert_pixels(dicom_bytes(stored, compress=codec, **elements), load_image(dicom_bytes(stored, **elements)))


def test_deflate_changes_nothing():
    elements = {"WindowCenter": 1000, "WindowWidth": 300}
    deflated = dicom_bytes(STORED, DeflatedExplicitVRLittleEndian, **elements)
    assert_pixels(deflated, load_image(dicom_bytes(STORED, **elements)))


# ---- pydicom's own files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb_rle_2frame.dcm"),
        ("SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd.dcm"),
    ],
)
def test_every_encoding_of_one_image_is_one_image(name, reference):
    if not (BUNDLED / name).exists() or not (BUNDLED / reference).exists():
        pytest.skip("this pydicom bundles other files")
    assert np.array_equal(load_image(BUNDLED / name), load_image(BUNDLED / reference))


def test_every_bundled_file_is_used_or_refused_with_a_reason():
    outcomes = {}
    for path in sorted(BUNDLED.rglob("*.dcm")):
        try:
            outcomes[path.name] = load_image(path)
        except ImageRefused as error:
            outcomes[path.name] = error.reason
    used = [name for name, outcome in outcomes.items() if not isinstance(outcome, str)]
    assert len(used) >= 40
    assert {"CT_small.dcm", "MR_small.dcm", "image_dfl.dcm", "JPEG2000.dcm", "liver_1frame.dcm"} & set(outcomes) <= set(
        used
    )
    assert "unreadable image" in outcomes["MR_truncated.dcm"]


def test_a_real_ct_without_window_is_its_rescaled_range():
    dataset = pydicom.dcmread(BUNDLED / "CT_small.dcm")
    hounsfield = dataset.pixel_array.astype(float) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    padding = dataset.pixel_array == dataset.PixelPaddingValue if "PixelPaddingValue" in dataset else None
    counted = hounsfield if padding is None else hounsfield[~padding]
    share = np.clip((hounsfield - counted.min()) / (counted.max() - counted.min()), 0, 1)
    assert np.array_equal(load_image(BUNDLED / "CT_small.dcm"), np.floor(share * 255 + 0.5).astype(np.uint8))


# ---- hostile files --------------------------------------------------------------------------------------------------


def test_a_header_that_promises_too_much_is_refused_quickly():
    content = dicom_bytes(STORED)
    rows = content.index(struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 2)) + 8
    huge = content[:rows] + struct.pack("<H", 65_000) + content[rows + 2 :]
    columns = huge.index(struct.pack("<HH2sHH", 0x28, 0x11, b"US", 2, 3)) + 8
    huge = huge[:columns] + struct.pack("<H", 65_000) + huge[columns + 2 :]
    start = time.process_time()
    with pytest.raises(ImageRefused, match="too many pixels"):
        load_image(huge)
    assert time.process_time() - start < 0.2  # of this process: others on the machine do not count


def test_a_deflate_bomb_is_refused_quickly():
    content = dicom_bytes(STORED, DeflatedExplicitVRLittleEndian)
    stream = io.BytesIO(content)
    stream.seek(132)
    pydicom.filereader._read_file_meta_info(stream)
    inflated = zlib.decompress(content[stream.tell() :], -zlib.MAX_WBITS)
    header = inflated[: inflated.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"))]
    padding = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 1 << 30) + b"\0" * (1 << 28)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = content[: stream.tell()] + squeeze.compress(header + padding) + squeeze.flush()
    assert len(bomb) < 1_000_000
    start = time.process_time()
    with pytest.raises(ImageRefused, match="inflates to more"):
        load_image(bomb)
    assert time.process_time() - start < 0.2  # of this process: others on the machine do not count


def test_a_codestream_larger_than_its_header_is_refused_before_decoding():
    stored = np.zeros((32, 40), np.uint16)
    content = dicom_bytes(stored, compress=JPEG2000Lossless)
    at = content.index(b"\xff\x4f\xff\x51") + 8
    bomb = content[:at] + struct.pack(">II", 60_000, 60_000) + content[at + 8 :]
    with pytest.raises(ImageRefused, match=r"\(60000, 60000\), its header says \(40, 32\)"):
        load_image(bomb)


def test_sizes_are_read_from_every_kind_of_codestream():
    image = Image.new("L", (37, 23))
    for format, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG2000", {"no_jp2": True})):
        stream = io.BytesIO()
        image.save(stream, format, **options)
        assert codestream(stream.getvalue()) == (37, 23, 8)
    assert codestream(b"\x01\0\0\0rle") is None
    with pytest.raises(ImageRefused):
        codestream(b"\xff\xd8\xff\xe0\x00\x04")


# ---- privacy --------------------------------------------------------------------------------------------------------


def identified(**elements):
    """A file whose every identifying element holds the secret."""
    names = ("PatientName", "PatientID", "InstitutionName", "ReferringPhysicianName", "AccessionNumber", "StudyID")
    texts = ("StudyDescription", "SeriesDescription", "OperatorsName", "PatientComments", "ImageComments")
    planted = dict.fromkeys((*names, *texts), SECRET)
    return dicom_bytes(STORED, **{**planted, "PatientBirthDate": "19010203", "StudyDate": "19990405", **elements})


def test_only_terms_of_the_standard_leave_a_header():
    header = read_header(identified(Modality="CT", BodyPartExamined="CHEST", ViewPosition="PA", ImageLaterality="L"))
    assert header.labels == {"modality_type": "CT", "body_part": "CHEST", "view": "PA", "laterality": "L"}
    misused = read_header(identified(Modality="CT", BodyPartExamined=SECRET, ViewPosition=SECRET, Laterality="R"))
    assert misused.labels == {"modality_type": "CT", "body_part": None, "view": None, "laterality": "R"}


def test_a_refusal_quotes_no_header_value(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    broken = [
        identified(PhotometricInterpretation=SECRET),
        identified(RescaleSlope=1, WindowCenter=1)[:-20],
        identified(NumberOfFrames=5),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for content in broken:
            with pytest.raises(ImageRefused) as refusal:
                load_image(content)
            assert SECRET not in str(refusal.value)
            assert refusal.value.__cause__ is None
        read_header(identified(PatientAge="not an age at all"))
    printed = capsys.readouterr()
    said = caplog.text + printed.out + printed.err + "".join(str(warning.message) for warning in caught)
    assert SECRET not in said


def test_burned_in_text_is_flagged_and_never_denied():
    assert read_header(identified(Modality="CT", BurnedInAnnotation="YES")).burned_in_text == "declared"
    assert read_header(identified(Modality="US", BurnedInAnnotation="NO")).burned_in_text == "suspected"
    assert read_header(identified(Modality="CT", ImageType=["DERIVED", "SECONDARY"])).burned_in_text == "suspected"
    assert read_header(identified(Modality="CT", BurnedInAnnotation="NO")).burned_in_text == "unknown"
