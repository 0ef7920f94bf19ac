"""Compressions: read where a codec is installed, and otherwise the message names the package that reads them."""

import hashlib
import importlib.util
import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
import raw_dicom
from dicom_cases import grey_elements, values_of
from dicom_oracle import Display, grey
from PIL import Image
from pydicom.encaps import encapsulate
from raw_dicom import data_set, dicom_file

from gapless.images.pixels import ImageRefused, load_image

BUNDLED = Path(pydicom.__file__).parent / "data/test_files"
BASELINE = "1.2.840.10008.1.2.4.50"
LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
HAS_LIBJPEG, HAS_GDCM, HAS_CHARLS = (importlib.util.find_spec(name) for name in ("libjpeg", "gdcm", "jpeg_ls"))


def compressed(values, bits, frame, syntax):
    elements = {**grey_elements(values, bits), "PixelData": None}
    body = data_set(elements) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + encapsulate([frame])
    return dicom_file({}, syntax) + body + b"\xfe\xff\xdd\xe0\0\0\0\0"


def lossless_jpeg(values, bits):
    """ITU-T T.81 annex H with the value on the left as prediction, and one Huffman table of 17 codes of 5 bits."""
    left = np.empty(values.shape, int)
    left[:, 1:], left[1:, 0], left[0, 0] = values[:, :-1], values[:-1, 0], 1 << (bits - 1)
    written = []
    # Differences are taken modulo 65536; the one of 16 bits, 32768, needs no further bits.
    for difference in ((values.astype(int) - left + 32767) % 65536 - 32767).ravel().tolist():
        size = abs(difference).bit_length()
        written.append(f"{size:05b}")
        if 0 < size < 16:
            written.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    bit_string = "".join(written)
    bit_string += "1" * (-len(bit_string) % 8)
    scan = int(bit_string, 2).to_bytes(len(bit_string) // 8, "big").replace(b"\xff", b"\xff\0")
    start = b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, bits, *values.shape, 1, 1, 0x11, 0)
    counts = bytes([0, 0, 0, 0, 17] + [0] * 11)
    table = b"\xff\xc4" + struct.pack(">HB", 19 + 17, 0) + counts + bytes(range(17))
    return b"\xff\xd8" + start + table + b"\xff\xda\0\x08\x01\x01\0\x01\0\0" + scan + b"\xff\xd9"


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_read_or_the_message_names_a_package(syntax, bits):
    values = values_of(bits, 0)
    content = compressed(values, bits, lossless_jpeg(values, bits), syntax)
    if HAS_LIBJPEG or HAS_GDCM:
        assert load_image(content).tolist() == grey(values, bits, Display(), False).tolist()
    else:
        with pytest.raises(ImageRefused, match="lossless JPEG, which needs a codec: pip install python-gdcm, or pylib"):
            load_image(content)


# A codestream is as long as its header: the codec is asked for before the frame is looked at.
@pytest.mark.parametrize(
    ("syntax", "is_read", "package"),
    [
        *((syntax, HAS_LIBJPEG or HAS_GDCM, "python-gdcm, or pylibjpeg-libjpeg") for syntax in LOSSLESS),
        *((syntax, HAS_LIBJPEG or HAS_GDCM or HAS_CHARLS, "pip install pyjpegls") for syntax in JPEG_LS),
    ],
)
def test_every_missing_codec_is_named(syntax, is_read, package):
    content = compressed(values_of(8, 0), 8, b"\xff\xd8\xff\xd9", syntax)
    with pytest.raises(ImageRefused, match="no readable header" if is_read else package):
        load_image(content)


def test_videos_and_unknown_compressions_are_refused_in_a_sentence():
    for syntax, kind in (
        ("1.2.840.10008.1.2.4.102", "as a video"),
        ("1.2.3.4.5", "in a way that no known codec reads"),
    ):
        with pytest.raises(ImageRefused, match=f"it is compressed {kind}; convert it first"):
            load_image(compressed(values_of(8, 0), 8, b"\0" * 90, syntax))


@pytest.mark.parametrize(("syntax", "first"), [(BASELINE, "pillow"), (JPEG_LS[0], "jpegls"), (LOSSLESS[0], "jpeg")])
def test_codecs_are_tried_in_one_order_whatever_is_installed(syntax, first):
    """pydicom asks gdcm first, whose colours of a JPEG are not those of Pillow."""
    from gapless.images.dicom_codecs import decode_frame

    asked = []

    class Decoder:
        UID, is_encapsulated, available_plugins = syntax, True, ("gdcm", "pillow", "pyjpegls", "pylibjpeg")

        def as_array(self, image, decoding_plugin, **options):
            asked.append(decoding_plugin)
            raise RuntimeError

    with pytest.raises(ImageRefused):
        decode_frame(Decoder(), None, 0)
    assert first in asked[0]
    assert sorted(asked) == sorted(Decoder.available_plugins)
    assert asked.index("gdcm") > asked.index("pylibjpeg")


def test_a_damaged_frame_is_called_damaged():
    frame = lossless_jpeg(values_of(8, 0), 8)
    with pytest.raises(ImageRefused, match=r"its frame \(JPEG\) is damaged"):
        load_image(compressed(values_of(8, 0), 8, frame[:40].replace(b"\xff\xc3", b"\xff\xc0"), BASELINE))


# ---- pydicom's own files --------------------------------------------------------------------------------------------

# What each refused file is: a refusal with another sentence, or of another file, is a change to look at.
REFUSED = {
    "JPEG-lossy.dcm": "JPEG of 12 bits",  # its scan header breaks ITU-T T.81: no codec reads it
    "JPEG2000-embedded-sequence-delimiter.dcm": "its header says",  # the size in its codestream was overwritten
    "MR_truncated.dcm": "its header needs 8192 bytes of pixels and it holds 8130",
    "meta_missing_tsyntax.dcm": "no usable Rows and Columns",
    "nested_priv_SQ.dcm": "no usable Rows and Columns",
    "no_meta.dcm": "not an image of an allowed format",  # begins with a stray byte
}
NEED_A_CODEC = {
    "JPGExtended.dcm": "pip install pylibjpeg-libjpeg",
    "JPEGLSNearLossless_08.dcm": "pip install pyjpegls",
    "JPEGLSNearLossless_16.dcm": "pip install pyjpegls",
    "MR_small_jpeg_ls_lossless.dcm": "pip install pyjpegls",
    "SC_rgb_jls_lossy_line.dcm": "pip install pyjpegls",
    "SC_rgb_jls_lossy_sample.dcm": "pip install pyjpegls",
    "SC_rgb_jpeg_gdcm.dcm": "pip install python-gdcm",
}


def test_every_file_of_pydicom_is_read_or_refused_with_its_reason():
    unexpected = {}
    for path in sorted(BUNDLED.rglob("*.dcm")):
        try:
            load_image(path)
        except ImageRefused as error:
            expected = {**REFUSED, **NEED_A_CODEC}.get(path.name, "holds no image")
            if expected not in str(error):
                unexpected[path.name] = str(error)
    assert unexpected == {}


def test_what_was_read_well_is_read_to_the_bit():
    """Checksums of pictures from before the headers were doubted: a well-formed file must not change."""
    known = {
        "CT_small.dcm": "93a18f934884",
        "MR_small.dcm": "38ab8d87e706",
        "JPEG2000.dcm": "539a7252a97a",
        "693_J2KI.dcm": "7b66c9c35446",
        "SC_rgb_rle_16bit.dcm": "169e619557b1",
        "SC_rgb_dcmtk_+eb+cy+np.dcm": "e0b1a561989d",
        "examples_palette.dcm": "322156a65198",
        "image_dfl.dcm": "1f5f1b1c1a57",
        "rtdose.dcm": "5b7e140d2f4d",
    }
    for name, digest in known.items():
        if (BUNDLED / name).exists():
            assert hashlib.sha256(load_image(BUNDLED / name).tobytes()).hexdigest()[:12] == digest, name


def test_a_codestream_of_more_bits_than_its_header_allows():
    values = values_of(16, 0)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG2000", no_jp2=True)
    content = compressed(values.astype(np.uint8), 8, stream.getvalue(), "1.2.840.10008.1.2.4.90")
    assert load_image(content).tolist() == grey(values, 16, Display(), False).tolist()


def test_rle_of_colours_is_read():
    colours = np.random.default_rng(0).integers(0, 256, (6, 10, 3)).astype(np.uint8)
    elements = grey_elements(colours[..., 0], 8, "RGB")
    elements |= {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": colours}
    assert load_image(dicom_file(elements, raw_dicom.RLE)).tolist() == colours.tolist()
