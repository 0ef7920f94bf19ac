"""Mutated files: no crash, no hang, each used or counted. The full numbers run behind the `slow` marker."""

import io
import random
import time

import numpy as np
import pytest
from data_samples import noise_image
from dicom_samples import dicom_bytes
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from gapless.images.pixels import ImageRefused, load_image
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions
from gapless.manifest.raw_rows import BytesSource, RawRow

SECONDS_EACH = 2.0
INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def encoded(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def image_seeds():
    grey = noise_image(0, (40, 30))
    colour = Image.merge("RGB", [noise_image(n, (40, 30)) for n in range(3)])
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    return [
        encoded(grey, "PNG"),
        encoded(colour, "PNG"),
        encoded(deep, "PNG"),
        encoded(colour.convert("P"), "PNG", transparency=3),
        encoded(colour, "JPEG", exif=exif),
        encoded(colour, "JPEG", progressive=True),
        encoded(colour.convert("CMYK"), "JPEG"),
        encoded(colour, "GIF", save_all=True, append_images=[grey.convert("RGB")]),
        encoded(colour, "BMP"),
        encoded(colour, "TIFF", compression="tiff_lzw"),
        encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        encoded(Image.fromarray(np.asarray(grey).astype(np.float32)), "TIFF"),
        encoded(colour, "TIFF", compression="jpeg"),
        encoded(colour, "WEBP"),
        encoded(colour, "WEBP", lossless=True),
        encoded(colour, "JPEG2000"),
        encoded(colour, "PPM"),
    ]


def dicom_seeds():
    stored = np.random.default_rng(0).integers(0, 4096, (24, 20)).astype(np.uint16)
    window = {"WindowCenter": 2000, "WindowWidth": 1000, "RescaleSlope": 1, "RescaleIntercept": -100}
    colour = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    return [
        dicom_bytes(stored, **window),
        dicom_bytes(stored, ImplicitVRLittleEndian, **window),
        dicom_bytes(stored, DeflatedExplicitVRLittleEndian, **window),
        dicom_bytes(stored, compress=RLELossless, **window),
        dicom_bytes(stored, compress=JPEG2000Lossless, **window),
        dicom_bytes(np.stack([stored] * 3), frames=3, PhotometricInterpretation="MONOCHROME1"),
        dicom_bytes(colour),
        dicom_bytes(stored.astype(np.int16), PixelPaddingValue=0),
    ]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes, numbers, cuts, repeats, deletions."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # Headers matter most.
        at = rng.randrange(min(len(data), rng.choice((64, 400, len(data)))) or 1)
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + 1] = bytes([data[at : at + 1][0] ^ (1 << rng.randrange(8))]) if data[at : at + 1] else b"x"
        elif kind == 1:
            data[at : at + 1] = bytes([rng.choice(INTERESTING)])
        elif kind == 2:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), rng.randbytes(4)))
        elif kind == 3:
            del data[at : at + rng.randint(1, 40)]
        elif kind == 4:
            data[at:at] = data[max(0, at - 30) : at] or rng.randbytes(10)
        else:
            del data[rng.randrange(1, len(data) + 1) :]
        data = data or bytearray(b"x")
    return bytes(data)


def fuzz(seeds, count, tmp_path, seed):
    """Load every mutant alone, under the clock; then all of them through the pipeline."""
    rng = random.Random(seed)
    mutants = [mutated(rng.choice(seeds), rng) for _ in range(count)]
    usable, slowest = 0, 0.0
    reasons: set[str] = set()
    for mutant in mutants:
        start = time.perf_counter()
        try:
            pixels = load_image(mutant)
        except ImageRefused as refusal:
            reasons.add(refusal.reason)
        else:
            usable += 1
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 2 or pixels.shape[2] == 3
        slowest = max(slowest, time.perf_counter() - start)
    rows = (RawRow(str(n), str(n), BytesSource(mutant, str(n)), "x", ["c"]) for n, mutant in enumerate(mutants))
    manifest = build_manifest(rows, tmp_path / "m", BuildOptions(source="fuzz", max_bad=1.0, workers=2))
    assert manifest.info["counts"] == {"read": count, "kept": usable, "skipped": count - usable}
    for row in range(len(manifest)):
        load_image(manifest.image_path(row))
    assert slowest < SECONDS_EACH
    assert reasons <= {"unreadable image", "too many pixels", "empty image"}
    return usable


def test_some_mutated_images(tmp_path):
    assert 20 < fuzz(image_seeds(), 300, tmp_path, seed=1) < 280


def test_some_mutated_dicom_files(tmp_path):
    assert 20 < fuzz(dicom_seeds(), 150, tmp_path, seed=2) < 140


@pytest.mark.slow
def test_five_thousand_mutated_images(tmp_path):
    assert 500 < fuzz(image_seeds(), 5000, tmp_path, seed=3) < 4500


@pytest.mark.slow
def test_two_thousand_mutated_dicom_files(tmp_path):
    assert 200 < fuzz(dicom_seeds(), 2000, tmp_path, seed=4) < 1900
