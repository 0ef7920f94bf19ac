"""Copies in the audit's report: placeholders, plain images, groups, and the one figure of leakage."""

import io
import json

import numpy as np
import pytest
from data_samples import noise_image
from PIL import Image

from gapless.auditing import figures as figures_module
from gapless.auditing.audit import audit
from gapless.auditing.leakage import leakage, share_in_train
from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions
from gapless.manifest.raw_rows import BytesSource, RawRow
from gapless.study.reliability import leakage_note
from gapless.training.evaluate import describe


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def picture(seed, side=96):
    """Smooth random shapes: survives JPEG, unlike noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def manifest_of(out, images, splits=None, groups=None):
    rows = [
        RawRow(
            str(n),
            f"row{n}",
            BytesSource(image if isinstance(image, bytes) else png(image), str(n)),
            f"image {n}",
            [f"finding {n}"],
            split=splits[n] if splits else "train",
            group=groups[n] if groups else f"g{n}",
        )
        for n, image in enumerate(images)
    ]
    return build_manifest(rows, out, BuildOptions(source="s", max_bad=0.0))


def test_hundreds_of_rows_of_few_placeholders(tmp_path, monkeypatch):
    """Each placeholder is one set, and its file is read once."""
    placeholders = [png(picture(n)) for n in range(3)]
    images = [placeholders[n % 3] for n in range(300)] + [jpeg(picture(0), 70), png(picture(50))]
    source = manifest_of(tmp_path / "m", images)
    paths = []
    hashing = figures_module.perceptual_hashes
    monkeypatch.setattr(
        figures_module, "perceptual_hashes", lambda given, count: paths.extend(given) or hashing(paths, count)
    )
    report = audit(source.path)
    assert len(paths) == 5
    duplicates, near = report.duplicates, report.near_duplicates
    assert (duplicates["sets"], duplicates["rows"], duplicates["largest"]) == (3, 300, 100)
    assert duplicates["example_sizes"] == [100] * 3
    assert [len(ids) for ids in duplicates["examples"]] == [5] * 3
    assert (near["sets"], near["rows"]) == (1, 101)
    assert "row0 = row3 = row6 = row9 = row12 and 95 more" in str(report)
    assert any("100 rows show one and the same image ('row0' first)" in note for note in report.notes)
    json.dumps(report.as_json(), allow_nan=False)


def test_many_sets_are_counted_and_few_are_named(tmp_path):
    images = [png(noise_image(n // 2)) for n in range(16)]
    source = manifest_of(tmp_path / "m", images, splits=["train"] * 12 + ["test", "train"] + ["train"] * 2)
    report = audit(source.path, near_duplicates=False)
    assert report.duplicates["sets"] == 8
    assert report.duplicates["examples"][0] == ["row12", "row13"]  # across splits first
    assert "and 3 more sets" in str(report)
    assert not any("placeholder" in note for note in report.notes)


def test_jpeg_noise_around_one_image_is_one_set(tmp_path):
    base = np.asarray(picture(1), np.int16)
    rng = np.random.default_rng(0)
    noisy = [np.clip(base + rng.normal(0, 2, base.shape), 0, 255).astype(np.uint8) for _ in range(60)]
    source = manifest_of(tmp_path / "m", [*(jpeg(Image.fromarray(one), 85) for one in noisy), png(picture(2))])
    report = audit(source.path)
    assert report.duplicates["sets"] == 0
    assert (report.near_duplicates["sets"], report.near_duplicates["rows"]) == (1, 60)


def test_plain_images_are_not_copies_of_each_other(tmp_path):
    """Their hashes differ in a few bits at most: without the rule, all these would be one set."""
    stripes = [np.tile((np.sin(np.arange(64) * step) * 90 + 120).astype(np.uint8), (64, 1)) for step in (0.2, 0.5)]
    plain = [Image.new("L", (64, 64 + level), level) for level in (0, 7, 128, 255)]
    images = [*plain, *map(Image.fromarray, stripes), picture(1), jpeg(picture(1), 60)]
    report = audit(manifest_of(tmp_path / "m", images).path)
    assert report.near_duplicates["not_compared"] == {"plain": 6, "unreadable": 0}
    assert report.near_duplicates["examples"] == [["row6", "row7"]]
    assert any("6 rows show nothing but" in note for note in report.notes)


def test_an_image_that_has_gone_since_is_said(tmp_path):
    source = manifest_of(tmp_path / "m", [picture(n) for n in range(3)])
    source.image_path(1).unlink()
    report = audit(source.path)
    assert report.near_duplicates["not_compared"]["unreadable"] == 1
    assert any("1 rows cannot be read" in note for note in report.notes)


def test_the_audit_the_results_and_the_report_count_the_same_leakage(tmp_path):
    """Of four test rows one shares a group with train and one an image: a half."""
    images = [picture(n) for n in range(8)]
    images[7] = images[0]
    splits = ["train"] * 4 + ["test"] * 4
    groups = ["a", "b", "c", "d", "a", "f", "g", "h"]
    source = manifest_of(tmp_path / "m", images, splits, groups)
    found = audit(source.path, near_duplicates=False).leakage
    assert found["group or image"]["test in train"] == {"groups": 1, "images": 1, "rows": 2, "share": 0.5}
    assert found["group"]["test in train"] == {"groups": 1, "rows": 1, "share": 0.25}
    data = describe(source, "test")
    assert data["leakage"] == {"test_rows_in_train_share": 0.5}
    assert "50.0% of the test rows" in leakage_note({"data": data}).text
    clean = manifest_of(tmp_path / "clean", images[:7], splits[:7], list("abcdefg"))
    assert describe(clean, "test")["leakage"] == {"test_rows_in_train_share": 0.0}
    audit(clean.path).refuse(["leakage", "duplicates", "near-duplicates"])


def test_a_row_that_leaks_twice_counts_once_and_a_missing_checksum_never():
    splits = ["train", "test", "test"]
    both = leakage(["a", "a", "b"], splits, ["x", "x", None])
    assert both["test in train"] == {"groups": 1, "images": 1, "rows": 1, "share": 0.5}
    assert leakage(["a", "b", "c"], splits, [None, None, None])["test in train"]["rows"] == 0


def test_without_training_rows_leakage_is_unknown_and_not_zero():
    assert share_in_train(["a"], ["test"], ["x"], "test") is None
    assert leakage_note({"data": {"leakage": {}}}).state == "unknown"


def test_near_copies_have_their_own_refusal(tmp_path):
    source = manifest_of(tmp_path / "m", [picture(1), picture(2), jpeg(picture(1), 60)], ["train", "train", "test"])
    report = audit(source.path)
    report.refuse(["leakage", "duplicates"])
    assert report.near_duplicates["held_out"] == {"test in train": {"rows": 1, "share": 1.0}}
    with pytest.raises(DataRefused, match="1 sets of nearly identical images across splits"):
        report.refuse(["near-duplicates"])
    with pytest.raises(UsageError, match="needs a manifest"):
        audit(source.path, near_duplicates=False).refuse(["near-duplicates"])


@pytest.mark.parametrize(
    ("groups", "splits", "said"),
    [
        ("aaaa", ["train", "train", "train", "train"], ["all 4 rows have one group", "all rows are in train"]),
        ("aaab", ["train", "train", "train", "test"], ["one group holds 3 of 4 rows (75.0%)"]),
        ("abcd", ["train", "train", "train", "test"], ["each row is alone in its group"]),
        ("aabb", ["train", "test", "train", "train"], ["1 group is in more than one split (2 rows)"]),
        ("aabb", ["train", "train", "test", "test"], []),
    ],
)
def test_what_is_odd_about_groups_is_said(tmp_path, groups, splits, said):
    notes = audit(manifest_of(tmp_path / "m", [noise_image(n) for n in range(4)], splits, list(groups)).path).notes
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_two_rows(tmp_path):
    report = audit(manifest_of(tmp_path / "m", [picture(1), picture(1)]).path)
    assert (report.duplicates["sets"], report.near_duplicates["sets"]) == (1, 0)
