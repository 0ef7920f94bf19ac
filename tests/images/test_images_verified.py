"""`verify_image` decodes a JPEG at an eighth of its size; it says of a damaged file what `load_image` says of it."""

import io
import random
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from gapless.images.pixels import ImageRefused, load_image, verify_image

SIDES = ((64, 48), (1, 1), (5, 90), (7, 9))
NUM_DAMAGES = 25


def jpeg(mode: str, side: tuple[int, int], **settings: object) -> bytes:
    shape = (side[1], side[0], *{"L": (), "RGB": (3,), "CMYK": (4,)}[mode])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, "JPEG", **settings)
    return stream.getvalue()


def damaged(content: bytes, drawn: random.Random) -> bytes:
    """The bytes cut short, or with some of them changed or put in."""
    changed = bytearray(content)
    kind = drawn.choice(("cut", "change", "head", "insert"))
    if kind == "cut":
        return content[: drawn.randrange(len(content))]
    end = 600 if kind == "head" else len(content)
    for _ in range(drawn.randrange(1, 6)):
        place = drawn.randrange(min(end, len(content)))
        if kind == "insert":
            changed[place:place] = drawn.randbytes(3)
        else:
            changed[place] = drawn.randrange(256)
    return bytes(changed)


def answer(read: Callable[[bytes], tuple[int, ...]], content: bytes) -> tuple[object, ...]:
    """(height, width), or the reason and the words of a refusal."""
    try:
        return read(content)
    except ImageRefused as error:
        return error.reason, error.detail


def loaded(content: bytes) -> tuple[object, ...]:
    return answer(lambda image: load_image(image).shape[:2], content)


def verified(content: bytes) -> tuple[object, ...]:
    return answer(verify_image, content)


@pytest.mark.parametrize(
    "settings", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}], ids=str
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_damaged_jpeg_is_verified_as_it_is_loaded(mode, settings):
    drawn = random.Random(f"{mode}{settings}")
    found = []
    for side in SIDES:
        whole = jpeg(mode, side, **settings)
        assert verified(whole) == side[::-1]
        for _ in range(NUM_DAMAGES):
            content = damaged(whole, drawn)
            found.append(loaded(content))
            assert verified(content) == found[-1]
    refused = sum(isinstance(said[0], str) for said in found)
    assert 0 < refused < len(found), "some are refused, and some are read"


def test_a_turned_jpeg_has_the_size_that_it_is_loaded_with():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    content = jpeg("RGB", (64, 48), exif=exif)
    assert verified(content) == loaded(content) == (64, 48)
