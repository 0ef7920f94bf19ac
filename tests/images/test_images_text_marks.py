"""Burned-in text: letters on a line are suspected, anatomy and single marks are not."""

import numpy as np
import pytest
from data_samples import noise_image, shared, write_jsonl
from dicom_samples import dicom_bytes
from PIL import Image, ImageDraw, ImageFont

from gapless.images.burned_in import suspects_text
from gapless.images.pixels import load_image
from gapless.manifest.readers.dicom_folder import read_dicom
from gapless.phantom.acquisition import draw_figure
from gapless.phantom.cases import articles


def with_text(image, text, size=14, place=(4, 4), fill=255):
    image = image.copy()
    ImageDraw.Draw(image).text(place, text, fill=fill, font=ImageFont.load_default(size))
    return np.asarray(image)


def anatomy(seed, size=256):
    """A dark image with bright rings and discs, as bones are."""
    rng = np.random.default_rng(seed)
    image = Image.new("L", (size, size), 12)
    draw = ImageDraw.Draw(image)
    for x, y, radius in rng.integers((40, 40, 8), (216, 216, 60), (8, 3)).tolist():
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), outline=230, width=5, fill=int(rng.integers(20, 120))
        )
    return image


@pytest.mark.parametrize("size", [12, 14, 18, 24])
def test_a_printed_name_is_suspected(size):
    found = [suspects_text(with_text(anatomy(seed), "DOE JOHN 1961", size)) for seed in range(20)]
    assert sum(found) >= 14


def test_dark_letters_on_a_bright_page_are_suspected():
    page = Image.new("L", (256, 256), 240)
    assert suspects_text(with_text(page, "DOE JOHN 1961", fill=0))


def test_anatomy_and_single_letters_rarely_are():
    assert sum(suspects_text(np.asarray(anatomy(seed))) for seed in range(40)) <= 3
    assert sum(suspects_text(with_text(anatomy(seed), "L")) for seed in range(40)) <= 3
    drawn = [draw_figure(figure, 64) for _, article in zip(range(60), articles(0), strict=False) for figure in article]
    assert not any(map(suspects_text, drawn))


def test_colour_and_tiny_images_are_no_trouble():
    assert suspects_text(np.stack([with_text(anatomy(0), "DOE JOHN 1961")] * 3, axis=-1))
    assert not suspects_text(np.zeros((1, 1), np.uint8))
    assert not suspects_text(np.asarray(noise_image(0, (3, 200))))


def test_what_medpix_prints_into_its_images_is_found():
    """Nearly every image has its source in small print; a third of it is still legible at this size."""
    paths = sorted(shared("medpix", "images").glob("*.jpg"))[:60]
    found = sum(suspects_text(load_image(path)) for path in paths)
    assert found / len(paths) > 0.15


def test_pixels_add_to_what_the_header_says(tmp_path):
    folder = tmp_path / "hospital"
    folder.mkdir()
    plain, printed = np.asarray(anatomy(0)), with_text(anatomy(0), "DOE JOHN 1961")
    files = {"a": (plain, "NO"), "b": (printed, "NO"), "c": (plain, "YES")}
    for name, (pixels, declared) in files.items():
        (folder / f"{name}.dcm").write_bytes(dicom_bytes(pixels, Modality="CT", BurnedInAnnotation=declared))
    reports = write_jsonl(tmp_path / "reports.jsonl", [{"image": f"{name}.dcm", "report": "r"} for name in files])
    manifest = read_dicom(folder, tmp_path / "m", reports)
    assert manifest.table["burned_in_text"].to_pylist() == ["unknown", "suspected", "declared"]
    clean = read_dicom(folder, tmp_path / "n", reports, allow_burned_in_text=False)
    assert clean.table["burned_in_text"].to_pylist() == ["unknown"]
    assert clean.info["skipped"] == {"burned-in text": 2}
