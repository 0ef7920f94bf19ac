"""The audit of manifests with modalities: presence that tells a label or a split is found, and chance is not."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_samples import noise_image, write_jsonl
from modality_samples import kinds, write_signal

from gapless.auditing.audit import audit
from gapless.auditing.leakage import content_leakage, leakage, manifest_share_in_train, share_in_train
from gapless.auditing.presence import PERMUTATIONS, adjust, label_figures, presence_notes, split_figures
from gapless.core.errors import DataRefused
from gapless.manifest.readers.table import read_table
from gapless.manifest.split import split_manifest

__all__ = ["kinds"]
pytestmark = pytest.mark.usefixtures("kinds")


def drawn(seed: int, rows: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random(rows) < share


# ---- what presence tells of a label ---------------------------------------------------------------------------------


def test_presence_that_is_the_label_tells_all_of_it_and_presence_by_chance_nothing():
    label = drawn(0, 400).astype(np.int64)
    groups = np.arange(400)
    told = label_figures({"image": np.ones(400, bool), "ecg": label == 1, "labs": drawn(1, 400)}, label, groups)
    assert told["share"] > 0.99
    assert told["p_value"] == 1 / (PERMUTATIONS + 1)
    assert told["most_by"] == "ecg"
    chance = label_figures({"image": np.ones(400, bool), "labs": drawn(1, 400)}, label, groups)
    assert chance["share"] < 0.01
    assert chance["p_value"] > 0.05


def test_the_share_is_the_entropy_that_the_pattern_removes():
    """Against a sum written out over the four cells of a table of 300, 100, 50, 550 cases."""
    cells = {(1, 0): 300, (1, 1): 100, (0, 0): 50, (0, 1): 550}
    has = np.array([cell[0] for cell, n in cells.items() for _ in range(n)], bool)
    label = np.array([cell[1] for cell, n in cells.items() for _ in range(n)])
    total = sum(cells.values())
    told = 0.0
    for (a, b), n in cells.items():
        of_a = sum(m for (c, _), m in cells.items() if c == a)
        of_b = sum(m for (_, d), m in cells.items() if d == b)
        told += n / total * math.log(n * total / (of_a * of_b))
    entropy = -sum(p * math.log(p) for p in (0.35, 0.65))
    figures = label_figures({"ecg": has}, label, np.arange(total))
    assert figures["share"] == pytest.approx(told / entropy, abs=0.003)  # less what 199 permutations give by chance


def test_groups_count_once():
    """Twelve groups of one random pattern each, repeated by 100 rows, prove nothing; as 1,200 rows they would."""
    found = []
    for seed in range(20):
        groups = np.repeat(np.arange(12), 100)
        label = np.repeat(drawn(seed, 12).astype(np.int64), 100)
        has = np.repeat(drawn(100 + seed, 12), 100)
        by_group = label_figures({"ecg": has, "image": np.ones(1200, bool)}, label, groups)
        by_row = label_figures({"ecg": has, "image": np.ones(1200, bool)}, label, np.arange(1200))
        if by_group is not None:
            found.append((by_group["p_value"] <= 0.01, by_row["p_value"] <= 0.01))
    assert sum(group for group, _ in found) <= 1
    assert sum(row for _, row in found) >= len(found) / 2  # the control


def test_what_cannot_be_tested_is_left_out():
    ones, label = np.ones(40, bool), drawn(0, 40).astype(np.int64)
    assert label_figures({"a": ones}, label, np.arange(40)) is None  # one pattern
    assert label_figures({"a": drawn(1, 40)}, np.zeros(40, np.int64), np.arange(40)) is None  # one label
    assert label_figures({"a": drawn(1, 40)}, label, np.arange(40) % 9) is None  # nine groups
    assert label_figures({"a": drawn(1, 40)}, np.full(40, -1), np.arange(40)) is None  # no label
    assert split_figures({"a": ones}, ["train"] * 40, np.arange(40)) == {}


def test_an_id_as_label_is_not_told():
    """400 labels of one row each: any pattern removes some of their entropy, and as much by chance."""
    figures = label_figures({"ecg": drawn(0, 400)}, np.arange(400), np.arange(400))
    assert figures["share"] < 0.01
    assert figures["p_value"] > 0.05


def test_presence_between_splits():
    splits = ["train"] * 300 + ["test"] * 100
    differs = np.concatenate([drawn(0, 300, 0.4), drawn(1, 100, 0.9)])
    figures = split_figures({"ecg": differs, "labs": drawn(2, 400)}, splits, np.arange(400))
    assert figures["ecg"]["share_difference"] == pytest.approx(differs[300:].mean() - differs[:300].mean())
    assert figures["ecg"]["p_value"] == 1 / (PERMUTATIONS + 1)
    assert figures["labs"]["p_value"] > 0.01
    _, adjusted = adjust({}, figures)
    presence = {"rows": 400, "present": {"ecg": 210, "labs": 200}, "between_splits": adjusted}
    (note,) = presence_notes(presence)
    assert note.startswith("ecg is present in")


# ---- leakage of items -----------------------------------------------------------------------------------------------


def leaking_rows(rows: list[tuple[str, str, set[str]]], held_out: str, other: str) -> int:
    """How many (split, group, items) of a split share a group or an item with a row of the other, pair by pair."""
    return sum(
        any(theirs == other and (g == group or i & items) for theirs, g, i in rows)
        for split, group, items in rows
        if split == held_out
    )


def test_leakage_of_items_against_a_search_of_all_pairs():
    random = np.random.default_rng(0)
    compared = 0
    for _ in range(30):
        splits = random.choice(["train", "validation", "test"], 20).tolist()
        groups = [f"g{n}" for n in random.integers(0, 30, 20)]
        drawn_items = [random.integers(0, 25, random.integers(0, 3)).astype(str).tolist() for _ in range(40)]
        contents = {"image": [of or None for of in drawn_items[:20]], "ecg": [of or None for of in drawn_items[20:]]}
        rows = [(splits[n], groups[n], {*drawn_items[n], *drawn_items[n + 20]}) for n in range(20)]
        for pair, entry in content_leakage(groups, splits, contents).items():
            assert entry["rows"] == leaking_rows(rows, *pair.split(" in "))
            compared += entry["rows"] > 0
        assert content_leakage(groups, splits, {}) == leakage(groups, splits)
    assert compared > 30


# ---- from the command's table to the report -------------------------------------------------------------------------


def manifest_of(folder: Path, told: bool, copied: bool = False) -> Any:
    """40 patients of two rows; where `told`, those of region head alone have an ECG."""
    folder.mkdir()
    rows = []
    for n in range(80):
        patient = n // 2
        head = patient % 2 == 1
        has = head if told else (patient // 2) % 2 == 1
        noise_image(n).save(folder / f"{n}.png")
        write_signal(folder / f"{n}.npy", n)
        rows.append(
            {
                "file": f"{n}.png",
                "caption": "no finding" if n % 3 else f"finding {n}",
                "path": f"{n}.npy" if has else None,
                "patient": f"p{patient}",
                "region": "head" if head else "chest",
                "split": "test" if patient >= 30 else "train",
            }
        )
    if copied:  # the ECG of a test patient is that of a training patient
        rows[70]["path"], rows[3]["path"] = "70.npy", "3.npy"
        (folder / "70.npy").write_bytes((folder / "3.npy").read_bytes())
    words = ["image=image:file", "report=text:caption", "ecg=signal:path,rate=500"]
    keys = {"group_key": "patient", "label_keys": "region", "split_key": "split"}
    return read_table(write_jsonl(folder / "t.jsonl", rows), folder / "m", modality=words, **keys)


def test_the_report_counts_presence_and_warns_where_it_tells_the_label(tmp_path):
    report = audit(manifest_of(tmp_path / "told", True).path, near_duplicates=False)
    assert report.presence["rows"] == 80
    assert report.presence["present"] == {"image": 80, "report": 80, "ecg": 40}
    assert report.presence["patterns"] == {"image + report": 40, "image + report + ecg": 40}
    assert report.presence["splits"]["test"]["present"]["ecg"] == 10
    assert report.presence["labels"]["region"]["share"] > 0.9
    (note,) = [note for note in report.notes if "presence alone" in note]
    assert "label 'region'" in note
    assert "ecg tells most" in note
    assert "p adjusted: 0.00" in str(report)
    chance = audit(manifest_of(tmp_path / "chance", False).path, near_duplicates=False)
    assert not [note for note in chance.notes if "presence alone" in note]


def test_a_copied_item_leaks_and_a_split_parts_no_copies(tmp_path):
    manifest = manifest_of(tmp_path / "copied", False, copied=True)
    report = audit(manifest.path)
    figures = report.leakage["group or item"]["test in train"]
    assert (figures["rows"], figures["ecg"], figures["image"], figures["groups"]) == (1, 1, 0, 0)
    assert report.leakage["group"]["test in train"]["rows"] == 0
    assert manifest_share_in_train(manifest, "test") == figures["share"] == 1 / 20
    assert report.copies["ecg"]["sets_across_splits"] == 1
    assert report.copies["image"]["sets"] == 0
    assert report.near_duplicates["sets"] == 0
    for name in ("leakage", "duplicates"):
        with pytest.raises(DataRefused, match="item"):
            report.refuse([name])
    again = split_manifest(manifest, tmp_path / "again", fractions=(0.5, 0.0, 0.5))
    assert audit(again.path, near_duplicates=False).leakage["group or item"]["test in train"]["rows"] == 0
    clean = audit(manifest_of(tmp_path / "clean", False).path, near_duplicates=False)
    clean.refuse(["leakage", "duplicates"])  # the control


def test_equal_texts_stand_beside_and_are_no_leak(tmp_path):
    report = audit(manifest_of(tmp_path / "m", False).path, near_duplicates=False)
    assert report.texts["report"]["captions"] == 80
    assert report.texts["report"]["duplicates"]["sets_across_splits"] == 1
    assert report.leakage["group or item"]["test in train"]["rows"] == 0


def test_version_1_and_version_2_are_audited_together(pairs, tmp_path):
    old = read_table(pairs(6), tmp_path / "old", group_key="case")
    words = ["image=image:image", "text=text:caption"]
    new = read_table(pairs(6), tmp_path / "new", group_key="case", modality=words)
    alone, both = audit(old.path), audit([old.path, new.path])
    assert both.presence["present"] == {"image": 12, "text": 12}
    assert both.copies["image"]["sets"] == 6
    assert audit(new.path).images == alone.images
    assert audit(new.path).texts["text"] == alone.captions
    assert audit(new.path).copies["image"] == alone.duplicates
    assert manifest_share_in_train(new, "train") == share_in_train([], [], [], "train") == 1.0
