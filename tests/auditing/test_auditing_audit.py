"""Audit and split: planted copies and leaks are found, clean data is called clean."""

import io
import random
from collections import Counter

import numpy as np
import pytest
from data_samples import noise_image, shared
from PIL import Image

from gapless.auditing.audit import audit
from gapless.auditing.figures import estimate_tokens, names_a_side
from gapless.auditing.leakage import leakage
from gapless.core.errors import DataRefused, UsageError
from gapless.images.duplicates import hash_file
from gapless.manifest.build import build_manifest
from gapless.manifest.options import BuildOptions
from gapless.manifest.raw_rows import BytesSource, RawRow
from gapless.manifest.readers.roco import roco_articles
from gapless.manifest.split import assign_splits, join_groups, split_manifest


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def manifest_of(out, images, **columns):
    rows = [
        RawRow(
            str(n),
            f"id{n}",
            BytesSource(image if isinstance(image, bytes) else png(image), str(n)),
            f"image {n}",
            [columns.get("captions", {}).get(n, f"caption number {n}")],
            split=columns.get("splits", {}).get(n, "train"),
            group=columns.get("groups", {}).get(n, f"g{n}"),
            labels={"kind": "ab"[n % 2]},
        )
        for n, image in enumerate(images)
    ]
    return build_manifest(rows, out, BuildOptions(source="s", labels=("kind",), max_bad=0.0))


# ---- leakage --------------------------------------------------------------------------------------------------------


def test_leakage_by_hand():
    groups = ["a", "a", "b", "c", "b", "d", "b", "e"]
    splits = ["train", "train", "train", "test", "test", "test", "validation", "validation"]
    report = leakage(groups, splits)
    assert report["test in train"] == {"groups": 1, "rows": 1, "share": pytest.approx(1 / 3)}
    assert report["validation in train"] == {"groups": 1, "rows": 1, "share": 0.5}
    assert report["test in validation"] == {"groups": 1, "rows": 1, "share": pytest.approx(1 / 3)}
    assert leakage(["a", "b"], ["train", "test"])["test in train"]["share"] == 0
    assert leakage(["a"], ["train"]) == {}


def test_the_official_split_of_roco_shares_articles_and_ours_does_not():
    """On ROCO's own ids, against a plain count; a split of rows, the control, leaks as the official one does."""
    articles = roco_articles(shared("roco"))
    train = set(articles["train"])
    by_hand = sum(article in train for article in articles["validation"]) / len(articles["validation"])
    report = audit(shared("roco"))
    official = report.leakage["official"]["validation in train"]
    assert official["share"] == by_hand == pytest.approx(5412 / 8180)
    assert report.leakage["group-disjoint"]["validation in train"]["share"] == 0
    groups = [*articles["train"], *articles["validation"]]
    rows = random.Random(0).choices(["train", "test"], [0.9, 0.1], k=len(groups))
    assert leakage(groups, rows)["test in train"]["share"] > 0.5


# ---- split ----------------------------------------------------------------------------------------------------------


def random_groups(seed, count=3000):
    rng = random.Random(seed)
    groups = [f"g{int(rng.paretovariate(1.2) * 40) % 700}" for _ in range(count)]
    strata_of = {
        group: rng.choices(["common", "rare", "single"], [0.8, 0.17, 0.03])[0] for group in sorted(set(groups))
    }
    return groups, [strata_of[group] for group in groups]


@pytest.mark.parametrize("seed", range(3))
def test_a_split_is_disjoint_of_the_right_size_and_stratified(seed):
    groups, strata = random_groups(seed)
    assigned = assign_splits(groups, (0.7, 0.1, 0.2), strata)
    splits = [assigned[group] for group in groups]
    assert all(entry["share"] == 0 for entry in leakage(groups, splits).values())
    largest = max(Counter(groups).values())
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert abs(splits.count(split) - share * len(groups)) <= 2 * largest
        common = [split for split, stratum in zip(splits, strata, strict=True) if stratum == "common"]
        assert abs(common.count(split) - share * len(common)) <= 2 * largest


def test_a_split_does_not_depend_on_the_order_of_rows_but_on_the_seed():
    groups, strata = random_groups(0)
    pairs = list(zip(groups, strata, strict=True))
    expected = assign_splits(groups, strata=strata)
    random.Random(1).shuffle(pairs)
    assert assign_splits([g for g, _ in pairs], strata=[s for _, s in pairs]) == expected
    assert assign_splits(groups, strata=strata, seed=1) != expected


def test_every_rare_label_reaches_the_held_out_splits_together():
    """Many strata of one group each: a naive per-stratum rounding would send them all to train."""
    groups = [f"g{n}" for n in range(200)]
    assigned = assign_splits(groups, strata=groups)
    assert 10 <= sum(split == "test" for split in assigned.values()) <= 30


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.1, 0.1)])
def test_fractions_must_add_up(fractions):
    with pytest.raises(UsageError, match="add up to 1"):
        assign_splits(["a"], fractions)


def test_groups_that_share_an_image_are_one():
    assert join_groups(["b", "a", "c", "d", "c"], ["1", "1", "2", "3", "1"]) == ["a", "a", "a", "d", "a"]


def test_a_manifest_is_split_anew_and_keeps_its_rows(tmp_path):
    images = [noise_image(n) for n in range(40)]
    images[7] = images[30]
    source = manifest_of(tmp_path / "m", images, groups={n: f"g{n // 2}" for n in range(40)})
    split = split_manifest(source.path, tmp_path / "s", (0.6, 0.2, 0.2), stratify="kind")
    assert split.table.drop(["split"]).equals(source.table.drop(["split"]))
    of = dict(zip(split.table["id"].to_pylist(), split.table["split"].to_pylist(), strict=True))
    assert of["id7"] == of["id30"] == of["id6"] == of["id31"]
    assert set(of.values()) == {"train", "validation", "test"}
    assert split.image_path(3).read_bytes() == source.image_path(3).read_bytes()
    assert split.fingerprint != source.fingerprint
    assert split.info["split"]["of"] == source.fingerprint
    assert split.labels == source.labels
    with pytest.raises(UsageError, match="unknown label 'colour'; known: kind"):
        split_manifest(source, tmp_path / "t", stratify="colour")
    with pytest.raises(UsageError, match="is in use"):
        split_manifest(source, tmp_path / "s")


# ---- duplicates -----------------------------------------------------------------------------------------------------


def structured_image(seed, size=256):
    """Something with the statistics of a picture: a dozen random ellipses over a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    plane = 60 * x + 40 * y
    for cx, cy, rx, ry, level in rng.uniform([0, 0, 0.05, 0.05, -90], [1, 1, 0.35, 0.35, 110], (12, 5)):
        plane += level * (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)
    return Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))


def reencoded(image, format="JPEG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


COPIES = {
    "JPEG at quality 40": lambda image: reencoded(image, quality=40),
    "WebP": lambda image: reencoded(image, "WEBP", quality=70),
    "half the size": lambda image: reencoded(image.resize((128, 128)), "PNG"),
    "1.7 times the size": lambda image: reencoded(image.resize((435, 435), Image.Resampling.BICUBIC), quality=80),
    "a quarter of the size": lambda image: reencoded(image.resize((64, 64)), quality=75),
    "brighter": lambda image: reencoded(image.point(lambda value: min(255, int(value * 1.1 + 8))), "PNG"),
}


def test_planted_copies_are_found_and_nothing_else(tmp_path):
    originals = [structured_image(seed) for seed in range(60)]
    copies = {n: copy(originals[n]) for n, copy in enumerate(COPIES.values())}
    source = manifest_of(
        tmp_path / "m", [*originals, *copies.values()], splits={60 + n: "test" for n in copies}, groups={60: "g0"}
    )
    report = audit(source.path)
    assert report.duplicates["sets"] == 0
    near = report.near_duplicates
    assert near["sets"] == near["sets_across_splits"] == len(COPIES)
    assert near["sets_across_groups"] == len(COPIES) - 1
    assert {tuple(ids) for ids in near["examples"]} <= {(f"id{n}", f"id{60 + n}") for n in copies}


def test_the_hash_has_the_bits_of_the_library(tmp_path):
    import imagehash

    structured_image(0).save(tmp_path / "a.png")
    words = hash_file(tmp_path / "a.png")
    expected = imagehash.phash(structured_image(0), hash_size=16).hash
    assert int(np.bitwise_count(words).sum()) == int(expected.sum())
    (tmp_path / "broken.png").write_bytes(b"no")
    assert hash_file(tmp_path / "broken.png") is None


def test_identical_images_are_found_without_decoding(tmp_path):
    images = [noise_image(n) for n in range(6)]
    images[4] = images[1]
    source = manifest_of(tmp_path / "m", images, splits={4: "test"})
    report = audit([source.path], near_duplicates=False)
    assert report.duplicates == {
        "sets": 1, "rows": 2, "largest": 2, "sets_across_splits": 1, "sets_across_groups": 1,
        "held_out": {"test in train": {"rows": 1, "share": 1.0}},
        "examples": [["id1", "id4"]], "example_sizes": [2],
    }  # fmt: skip
    assert "near_duplicates" not in report.as_json()
    with pytest.raises(DataRefused, match="1 sets of identical images across splits"):
        report.refuse(["duplicates"])
    assert report.leakage["group"]["test in train"]["rows"] == 0
    with pytest.raises(DataRefused, match=r"100\.0% of test has its group or its image in train"):
        report.refuse(["leakage"])


# ---- the whole report -----------------------------------------------------------------------------------------------


@pytest.fixture
def leaky(tmp_path):
    captions = {0: "Left effusion.", 1: "left  EFFUSION", 2: "RUL nodule", 3: "word " * 100, 4: "a leftover"}
    return manifest_of(
        tmp_path / "m",
        [structured_image(n, 300) for n in range(8)],
        captions=captions,
        splits={6: "test", 7: "test", 1: "test"},
        groups={6: "g0", 0: "g0"},
    )


def test_a_leak_is_named_and_refused_when_asked(leaky):
    report = audit([leaky.path])
    assert report.leakage["group"]["test in train"] == {"groups": 1, "rows": 1, "share": pytest.approx(1 / 3)}
    with pytest.raises(DataRefused, match=r"33\.3% of test has its group or its image .*data split'") as refusal:
        report.refuse(["leakage"])
    assert refusal.value.exit_code == 3
    report.refuse([])
    with pytest.raises(UsageError, match=r"unknown --fail-on 'leaks'"):
        report.refuse(["leaks"])
    clean = split_manifest(leaky, leaky.path.parent / "clean")
    audit([clean.path], near_duplicates=False).refuse(["leakage", "duplicates"])


def test_captions_sizes_and_licences(leaky):
    report = audit([leaky.path], near_duplicates=False)
    captions = report.captions
    assert captions["captions"] == 8
    assert captions["duplicates"] == {"share": 2 / 8, "sets": 1, "sets_across_splits": 1}
    assert captions["share_with_side"] == 3 / 8
    assert captions["share_cut_at_tokens"] == {"77": 1 / 8, "128": 0.0}
    assert captions["tokens_are_estimated"]
    assert report.images["short_side"] == {"min": 300, "median": 300.0, "max": 300}
    assert report.images["share_below_224"] == 0
    assert report.licences == {"unknown": 8}
    counted = audit([leaky.path], near_duplicates=False, count_tokens=lambda text: len(text.split())).captions
    assert counted["share_cut_at_tokens"] == {"77": 1 / 8, "128": 0.0}
    assert not counted["tokens_are_estimated"]


def test_several_manifests_are_audited_as_one(tmp_path):
    train = manifest_of(tmp_path / "a", [noise_image(n) for n in range(4)])
    test = manifest_of(tmp_path / "b", [noise_image(n) for n in (2, 9)], splits={0: "test", 1: "test"})
    report = audit([train.path, test.path], near_duplicates=False)
    assert report.rows == {"train": 4, "test": 2}
    assert report.counts == {"read": 6, "kept": 6, "skipped": 0}
    assert report.leakage["group"]["test in train"]["rows"] == 2
    assert report.duplicates["sets_across_splits"] == 1


def test_the_text_says_what_the_dictionary_holds(leaky):
    text = str(audit([leaky.path]))
    for line in ("share: 33.3%", "share with side: 37.5%", "77: 12.5%", "train: 5", "near duplicates:", "median: 300"):
        assert line in text
    assert "{" not in text


def test_sides_are_found_and_lookalikes_are_not():
    for text in ("left lung", "Rt. hip", "LUL mass", "the RIGHT kidney", "bilateral", "right-sided effusion"):
        assert names_a_side(text)
    for text in ("a leftover", "brightness", "cleft palate", "altered", "CT of the chest", "rtPA"):
        assert not names_a_side(text)


@pytest.mark.slow
def test_tokens_are_estimated_close_to_a_real_tokenizer():
    """CLIP's own tokenizer over ROCO's captions."""
    tokenizer = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    lines = (shared("roco") / "data/validation/radiology/captions.txt").read_text().split("\n")[:400]
    texts = [line.partition("\t")[2].strip() for line in lines]
    actual = [len(tokenizer.encode(text)) + 2 for text in texts]
    assert sum(map(estimate_tokens, texts)) / sum(actual) == pytest.approx(1, abs=0.05)


def test_what_is_no_manifest_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is no manifest"):
        audit([tmp_path])
    with pytest.raises(UsageError, match="does not exist"):
        audit([tmp_path / "none"])
