"""Image files of more than 8 bits a channel, written byte by byte, against numbers worked out in numpy."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from gapless.images.pixels import ImageRefused, load_image, verify_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 4096, (5, 7, 3)).astype(np.uint16)
COLOURS[0, 0, 0], COLOURS[1, 1, 2] = 0, 4095
GREY = COLOURS[..., 0].copy()
GREY[1, 1] = 4095


def stretched(values, low=None, high=None):
    low, high = values.min() if low is None else low, values.max() if high is None else high
    share = np.clip((values.astype(float) - float(low)) / (float(high) - float(low)), 0, 1)
    return np.floor(share * 255 + 0.5).astype(np.uint8)


def png(values, kind, *chunks, interlaced=0):
    """A 16-bit PNG: kind 0 grey, 2 colours, 4 grey and alpha, 6 colours and alpha; every line is filtered otherwise."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    octets = values.astype(">u2").reshape(height, -1).view(np.uint8)
    step = octets.shape[1] // width
    lines, above = [], np.zeros_like(octets[0])
    for number, line in enumerate(octets):
        left = np.concatenate([np.zeros(step, np.uint8), line[:-step]])
        filtered = {0: line, 1: line - left, 2: line - above}[number % 3]
        lines.append(bytes([number % 3]) + filtered.tobytes())
        above = line
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlaced)
    body = b"".join(chunk(name, data) for name, data in chunks)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + pixels + chunk(b"IEND", b"")


def tiff(values, order="<", sample_format=1, photometric=2, compressed=False, extra=None):
    """A TIFF of one strip."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    pixels = zlib.compress(pixels) if compressed else pixels
    bits = values.dtype.itemsize * 8
    entries = [(256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * channels), (259, 3, [8 if compressed else 1])]
    entries += [(262, 3, [photometric]), (273, 4, [8]), (277, 3, [channels]), (278, 3, [height])]
    entries += [(279, 4, [len(pixels)]), (284, 3, [1])] + ([(338, 3, [extra])] if extra is not None else [])
    entries += [(339, 3, [sample_format] * channels)]
    pixels += b"\0" * (len(pixels) % 2)
    end = 8 + len(pixels) + 2 + 12 * len(entries) + 4
    table, tail = b"", b""
    for tag, kind, numbers in entries:
        content = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(content) > 4:
            offset = end + len(tail)
            tail += content
            content = struct.pack(f"{order}I", offset)
        table += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    return head + pixels + struct.pack(f"{order}H", len(entries)) + table + b"\0\0\0\0" + tail


def assert_pixels(content, expected):
    assert load_image(content).tolist() == np.asarray(expected).tolist()
    assert verify_image(content) == np.asarray(expected).shape[:2]


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_sixteen_bit_colour_png_spans_one_range_for_all_channels(bits):
    values = COLOURS >> 4 << (bits - 8)
    assert_pixels(png(values, 2), stretched(values))
    assert_pixels(png(values[..., 0], 0), stretched(values[..., 0]))


@pytest.mark.parametrize("full", [65535, 4095, 1023])
def test_sixteen_bit_alpha_lies_over_white(full):
    """Alpha of 12 bits is opaque at 4095, as its colours are white there."""
    alpha = np.full_like(GREY, full)
    alpha[2, 2], alpha[3, 3] = 0, full // 2
    share = (alpha / full)[..., None]
    colours = COLOURS.copy()
    colours[2, 2] = 65535  # what is transparent does not count for the range
    for values, kind in ((colours, 6), (colours[..., :1], 4)):
        counted = np.delete(values.reshape(-1, values.shape[2]), 2 * 7 + 2, axis=0)
        grey = stretched(values, counted.min(), counted.max())
        expected = np.floor(((grey / 255) * share + (1 - share)) * 255 + 0.5).astype(np.uint8)
        expected = expected[..., 0] if kind == 4 else expected
        assert_pixels(png(np.concatenate([values, alpha[..., None]], axis=2), kind), expected)
        assert (expected[2, 2] == 255).all()


def test_what_is_opaque_is_as_without_alpha():
    opaque = np.full((*GREY.shape, 1), 65535, np.uint16)
    assert_pixels(png(np.concatenate([COLOURS, opaque], axis=2), 6), stretched(COLOURS))
    assert_pixels(png(np.concatenate([GREY[..., None], opaque], axis=2), 4), stretched(GREY))


def test_a_transparent_value_of_a_deep_png_is_white_and_does_not_count():
    grey, colours = GREY.copy(), COLOURS.copy()
    grey[0, 0], colours[0, 0] = 65535, 65535
    expected = stretched(grey, GREY.ravel()[1:].min(), 4095)
    assert_pixels(png(grey, 0, (b"tRNS", struct.pack(">H", 65535))), expected)
    low = np.delete(colours.reshape(-1, 3), 0, axis=0).min()
    assert_pixels(png(colours, 2, (b"tRNS", struct.pack(">HHH", 65535, 65535, 65535))), stretched(colours, low, 4095))


def test_dark_pictures_of_8_bits_stay_dark():
    """The control: only what has more than 8 bits is scaled."""
    dark = (COLOURS >> 8).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(dark).save(stream, "PNG")
    assert_pixels(stream.getvalue(), dark)
    assert_pixels(png(COLOURS >> 8, 2), stretched(dark))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_deep_colours_of_tiff(order, compressed):
    assert_pixels(tiff(COLOURS, order, compressed=compressed), stretched(COLOURS))
    alpha = np.full((*GREY.shape, 1), 65535, np.uint16)
    both = np.concatenate([COLOURS, alpha], axis=2)
    assert_pixels(tiff(both, order, compressed=compressed, extra=2), stretched(COLOURS))
    assert_pixels(tiff(both, order, compressed=compressed, extra=0), stretched(COLOURS))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "sample_format"), [("u2", 1), ("i2", 2), ("i4", 2), ("u4", 1), ("f4", 3), ("f8", 3), ("i1", 2)]
)
def test_every_kind_of_number_in_a_tiff(order, dtype, sample_format):
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = RNG.normal(size=(5, 7)).astype(kind)
    else:
        bounds = np.iinfo(kind)
        values = RNG.integers(bounds.min, bounds.max, (5, 7), endpoint=True, dtype=kind)
        values[0, 0], values[0, 1] = bounds.min, bounds.max
    content = tiff(values, order, sample_format, photometric=1)
    try:
        with Image.open(io.BytesIO(content)):
            pass
    except OSError:
        with pytest.raises(ImageRefused, match="a TIFF of a kind that is not read"):
            load_image(content)
        pytest.skip("this Pillow does not open such a TIFF")
    assert_pixels(content, stretched(values))


def test_deep_colours_of_ppm():
    head = b"P6\n# a comment\n7 5\n65535\n"
    assert_pixels(head + COLOURS.astype(">u2").tobytes(), stretched(COLOURS))
    with pytest.raises(ImageRefused):
        load_image(head + COLOURS.astype(">u2").tobytes()[:-9])


def test_deep_colours_of_jpeg_2000(monkeypatch):
    utils = pytest.importorskip("openjpeg.utils")
    wide = np.tile(COLOURS, (20, 20, 1))
    for format in (0, 1):
        content = utils.encode_array(wide, bits_stored=16, photometric_interpretation=1, codec_format=format)
        assert_pixels(content, stretched(wide))
    eight = utils.encode_array((wide >> 8).astype(np.uint8), bits_stored=8, photometric_interpretation=1)
    assert_pixels(eight, wide >> 8)
    monkeypatch.setitem(sys.modules, "openjpeg.utils", None)
    with pytest.raises(ImageRefused, match=r"pip install 'gapless\[dicom\]'"):
        load_image(content)
    assert_pixels(eight, wide >> 8)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_deep_file_that_ends_too_soon_is_refused(share):
    noise = RNG.integers(0, 65536, (40, 50, 3)).astype(np.uint16)
    for content in (png(noise, 2), tiff(noise), tiff(noise, compressed=True)):
        load_image(content)
        with pytest.raises(ImageRefused):
            load_image(content[: int(len(content) * share)])


def test_a_deep_picture_is_turned_as_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = png(COLOURS, 2, (b"eXIf", exif.tobytes()[6:]))
    assert_pixels(content, np.rot90(stretched(COLOURS), -1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_png_of_fewer_bits_spans_them(bits):
    values = np.arange(8, dtype=np.uint8)[None] % (1 << bits)
    packed = np.packbits(((values[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()).tobytes()
    content = png(np.zeros((1, 8), np.uint16), 0)
    content = content[:16] + struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0) + b"\0\0\0\0"
    content = content[:29] + struct.pack(">I", zlib.crc32(content[12:29]))
    data = zlib.compress(b"\0" + packed)
    content += struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    content += struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    assert_pixels(content, values * (255 // ((1 << bits) - 1)))
