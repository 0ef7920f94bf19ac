"""Examples of cases: one row of each pattern, what it lacks said, what cannot be read said."""

import base64
import io
from pathlib import Path

import pyarrow as pa
from fake_comparison import write_comparison
from PIL import Image

from gapless.manifest.manifest import Manifest
from gapless.study.cases import UNREADABLE, cases_of
from gapless.study.report import report


def _manifest(path: Path) -> Manifest:
    for row in range(4):
        Image.new("L", (40, 20), 60 * row).save(path / f"{row}.png")
    (path / "3.png").write_bytes(b"no image")
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "split": ["test"] * 4,
            "image": ["0.png", "1.png", None, "3.png"],
            "captions": [["<b>first</b>", "second"], ["other"], ["text alone"], None],
            "ecg": pa.array([None, None, [0.5, -1.5], None], pa.list_(pa.float32())),
        }
    )
    return Manifest(path, {"image_root": ".", "labels": [], "modalities": ["image", "text", "ecg"]}, table)


def test_every_pattern_gives_a_row_before_any_gives_a_second_one(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    first = cases_of(manifest, 3)
    assert {case.id for case in first} in ({"a", "c", "d"}, {"b", "c", "d"})
    assert first[0].id in ("a", "b")  # the most frequent pattern
    assert {case.id for case in cases_of(manifest, 9)} == {"a", "b", "c", "d"}
    assert cases_of(manifest, 3) == first


def test_an_item_is_a_picture_a_text_absent_or_unreadable(tmp_path: Path) -> None:
    cases = {case.id: {item.modality: item for item in case.items} for case in cases_of(_manifest(tmp_path))}
    picture = cases["a"]["image"].picture
    assert picture is not None
    with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as image:
        assert image.format == "JPEG"
    assert cases["a"]["text"].text == "<b>first</b>"
    assert (cases["c"]["image"].picture, cases["c"]["image"].text) == (None, None)
    assert cases["c"]["ecg"].text == "2 numbers from -1.5 to 0.5"
    assert cases["d"]["image"].text == UNREADABLE


def test_the_report_shows_cases_escaped_and_says_that_it_holds_data(tmp_path: Path) -> None:
    write_comparison(tmp_path / "compare", 1, runs={}, differences={})
    manifest = _manifest(tmp_path)
    report(tmp_path / "compare", out=tmp_path / "with.html", data=manifest)
    page = (tmp_path / "with.html").read_text()
    assert "&lt;b&gt;first&lt;/b&gt;" in page
    assert "<b>first" not in page
    assert "Examples of cases" in page
    assert "share it only where the data may be shared" in page
