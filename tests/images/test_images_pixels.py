"""Every pixel mode against values worked out by hand; the maximum difference allowed is 0."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from data_samples import noise_image
from PIL import Image, TiffImagePlugin

from gapless.images import limits
from gapless.images.pixels import MAX_PIXELS, ImageRefused, load_image, stretch_to_uint8

GREY = np.array([[0, 1, 100], [128, 254, 255]], np.uint8)
COLOUR = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def assert_pixels(content, expected):
    actual = load_image(content)
    assert actual.dtype == np.uint8
    assert actual.tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP"])
def test_eight_bit_grey_stays(format):
    options = {"lossless": True} if format == "WEBP" else {}
    # GIF knows only palettes and WebP only colours.
    expected = np.stack([GREY] * 3, axis=-1) if format in ("GIF", "WEBP") else GREY
    assert_pixels(encoded(Image.fromarray(GREY), format, **options), expected)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_eight_bit_colour_stays(format):
    assert_pixels(encoded(Image.fromarray(COLOUR), format), COLOUR)


def test_one_bit_is_black_and_white():
    assert_pixels(encoded(Image.fromarray(GREY > 127)), [[0, 0, 0], [255, 255, 255]])


def test_sixteen_bits_are_scaled_where_pillow_clips_to_white():
    values = np.array([[0, 257, 25700], [32896, 65278, 65535]], np.uint16)
    content = encoded(Image.fromarray(values))
    assert_pixels(content, [[0, 1, 100], [128, 254, 255]])
    with Image.open(io.BytesIO(content)) as image:
        clipped = np.asarray(image.convert("RGB"))
    assert (clipped[1, 1] == 255).all()
    assert (clipped[0, 2] == 255).all()


def test_twelve_bits_in_sixteen_use_the_whole_range():
    values = np.array([[0, 819], [2048, 4095]], np.uint16)
    assert_pixels(encoded(Image.fromarray(values)), [[0, 51], [128, 255]])


def test_thirty_two_bits_and_floats_are_scaled():
    integers = np.array([[-1000, 0], [1000, 3080]], np.int32)
    assert_pixels(encoded(Image.fromarray(integers), "TIFF"), [[0, 63], [125, 255]])
    floats = np.array([[-1.0, -0.5], [0.0, 1.0]], np.float32)
    assert_pixels(encoded(Image.fromarray(floats), "TIFF"), [[0, 64], [128, 255]])


def test_floats_that_are_not_finite_are_black_and_do_not_count():
    floats = np.array([[np.nan, 1.0], [np.inf, 3.0], [-np.inf, 2.0]], np.float32)
    assert_pixels(encoded(Image.fromarray(floats), "TIFF"), [[0, 0], [0, 255], [0, 128]])
    with pytest.raises(ImageRefused, match="no finite pixel"):
        load_image(encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"))


def test_extreme_floats_do_not_overflow():
    limit = np.finfo(np.float64).max
    assert stretch_to_uint8(np.array([[-limit, 0, limit]])).tolist() == [[0, 128, 255]]


def test_a_constant_image_is_black_unless_it_has_eight_bits():
    assert_pixels(encoded(Image.fromarray(np.full((1, 2), 700, np.uint16))), [[0, 0]])
    assert_pixels(encoded(Image.fromarray(np.full((1, 2), 70, np.uint8))), [[70, 70]])


def test_a_palette_gives_its_colours():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 0, 7, 7, 7])
    image.putdata([0, 1, 2])
    assert_pixels(encoded(image), [[[10, 20, 30], [200, 100, 0], [7, 7, 7]]])


def test_transparency_lies_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 100, 200, 51]]], np.uint8)
    assert_pixels(encoded(Image.fromarray(rgba)), [[[10, 20, 30], [255, 255, 255], [204, 224, 244]]])
    la = np.array([[[10, 255], [10, 0], [100, 51]]], np.uint8)
    assert_pixels(encoded(Image.fromarray(la, "LA")), [[10, 255, 224]])


def test_transparency_of_a_palette_and_of_a_colour_key():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    assert_pixels(encoded(image, transparency=1), [[[10, 20, 30], [255, 255, 255]]])
    assert_pixels(encoded(Image.fromarray(GREY), transparency=100), np.where(GREY == 100, 255, GREY))


def test_cmyk_is_converted():
    cmyk = Image.new("CMYK", (2, 1))
    cmyk.putdata([(0, 0, 0, 0), (255, 0, 0, 0)])
    assert_pixels(encoded(cmyk, "TIFF"), [[[255, 255, 255], [0, 255, 255]]])


def test_a_cmyk_jpeg_is_not_a_negative():
    cmyk = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert load_image(encoded(cmyk, "JPEG")).min() >= 253


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_against_numpy(orientation):
    """The eight orientations of the EXIF standard, written with numpy's own flips."""
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](GREY)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_pixels(encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif), GREY)


def test_broken_exif_does_not_cost_the_pixels():
    exif = Image.Exif()
    exif[0x011A] = TiffImagePlugin.IFDRational(1, 1)
    exif[0x0112] = 3
    content = encoded(noise_image(1), "JPEG", exif=exif)
    plain = load_image(encoded(noise_image(1), "JPEG"))
    # A rational over zero, and an offset that points out of the block.
    for broken in (
        content.replace(struct.pack("<II", 1, 1), struct.pack("<II", 1, 0)),
        content.replace(b"Exif\0\0II*\0\x08", b"Exif\0\0II*\0\xf8"),
        content.replace(b"Exif\0\0II", b"Exif\0\0XX"),
    ):
        assert broken != content or b"MM" in content
        assert load_image(broken).shape == plain.shape


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for format in ("GIF", "PNG", "TIFF"):
        content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert_pixels(content, np.stack([GREY] * 3, axis=-1) if format == "GIF" else GREY)


def test_a_deep_tiff_that_counts_from_white_is_turned():
    values = np.array([[0, 32768, 65535]], np.uint16)
    content = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(content)) as image:
        if image.tag_v2[262] != 0:
            pytest.skip("this Pillow writes its own photometric tag")
    assert_pixels(content, [[255, 127, 0]])


def test_a_path_and_its_bytes_are_the_same(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(GREY)))
    assert np.array_equal(load_image(tmp_path / "a.png"), GREY)
    assert np.array_equal(load_image(str(tmp_path / "a.png")), GREY)
    with pytest.raises(ImageRefused, match="missing image"):
        load_image(tmp_path / "b.png")


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(format, share):
    content = encoded(noise_image(3, (200, 160)), format)
    load_image(content)
    with pytest.raises(ImageRefused):
        load_image(content[: int(len(content) * share)])


def test_a_format_that_is_not_allowed_is_refused_without_starting_a_program(monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *args, **kwargs: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for content in (eps, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"", b"\0" * 500):
        with pytest.raises(ImageRefused, match="allowed format"):
            load_image(content)
    icon = encoded(Image.fromarray(COLOUR), "ICO")
    with pytest.raises(ImageRefused):
        load_image(icon)


def png_bomb(width, height):
    """A PNG whose header promises a huge image and whose data inflate to a lot of nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000, 9)) + chunk(b"IEND", b"")


def patched(content, at, new):
    return content[:at] + new + content[at + len(new) :]


def tiff_bomb():
    content = encoded(Image.fromarray(GREY), "TIFF")
    for tag in (256, 257):
        at = next(at for at in range(len(content)) if content[at : at + 2] == struct.pack("<H", tag) and at > 8)
        content = patched(content, at, struct.pack("<HHII", tag, 4, 1, 60_000))
    return content


def jpeg_bomb():
    content = encoded(Image.fromarray(GREY), "JPEG")
    return patched(content, content.index(b"\xff\xc0") + 5, struct.pack(">HH", 60_000, 60_000))


def webp_bomb():
    content = encoded(Image.fromarray(COLOUR), "WEBP", lossless=True)
    return patched(content, content.index(b"VP8L") + 9, struct.pack("<I", 16_382 | (16_382 << 14)))


BOMBS = {
    "PNG": lambda: png_bomb(50_000, 50_000),
    "PNG below Pillow's own limit": lambda: png_bomb(9000, 9000),
    "BMP": lambda: patched(encoded(Image.fromarray(GREY), "BMP"), 18, struct.pack("<II", 60_000, 60_000)),
    "GIF": lambda: patched(encoded(Image.fromarray(GREY), "GIF"), 6, struct.pack("<HH", 65_535, 65_535)),
    "PPM": lambda: b"P5 60000 60000 255\n" + b"\0" * 100,
    "TIFF": tiff_bomb,
    "JPEG": jpeg_bomb,
    "WEBP": webp_bomb,
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused_before_decoding(name):
    content = BOMBS[name]()
    load_image(encoded(Image.fromarray(GREY)))  # Pillow loads its plugins once
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageRefused, match="too many pixels"):
            load_image(content)
    assert time.process_time() - start < 0.2


def test_a_huge_sparse_file_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as stream:
        stream.write(encoded(Image.fromarray(GREY)))
        stream.truncate(1 << 40)
    with pytest.raises(ImageRefused, match="file too large"):
        load_image(tmp_path / "a.png")


def test_the_cap_is_on_pixels(monkeypatch):
    image = encoded(Image.fromarray(GREY))
    monkeypatch.setattr(limits, "MAX_PIXELS", 6)
    load_image(image)
    monkeypatch.setattr(limits, "MAX_PIXELS", 5)
    with pytest.raises(ImageRefused, match="too many pixels"):
        load_image(image)
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS
