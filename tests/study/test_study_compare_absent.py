"""`compare` on three modalities of which rows lack some: its files, its refusals, and the report of it."""

import json
import math

import pytest
import torch
from absent_rows import three_modalities, without
from safetensors.torch import load_file, save_file

from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_json, write_json
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.manifest.readers.phantom import write_phantom
from gapless.metrics.measure import measure
from gapless.study.compare import _embeddings_of, check_comparable, compare
from gapless.study.pair_tables import pair_tables
from gapless.study.report import report
from gapless.training.evaluate import measured_on
from gapless.training.recipes import Recipe

JOINT = "image+waveform->text"
TRAINING = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "save_strategy": "no",
    "logging_steps": 2,
    "eval_strategy": "no",
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return write_phantom(folder, num_pairs=120, num_validation=10, num_test=40, image_size=16, workers=1)


@pytest.fixture(scope="module")
def manifest(phantom):
    absent = {"image": range(0, 120, 4), "text": range(1, 120, 5), "waveform": range(2, 120, 3)}
    return without(phantom, absent)


def recipe():
    modalities = dict(reversed(three_modalities().items()))  # an order that is not that of the alphabet
    return Recipe(
        modalities=modalities,
        embedding_dim=24,
        vocab_size=400,
        loss=GapClosingSettings(),
        training=TRAINING,
    )


@pytest.fixture(scope="module")
def compared(manifest, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "compare"
    settings = recipe()
    comparison = compare(
        data=manifest,
        out=out,
        methods=["clip", "gapless"],
        seeds=[0],
        num_bootstrap=5,
        settings=settings,
        joint=[JOINT],
    )
    return comparison, out


def test_every_pair_has_its_rows_and_its_gallery(compared, manifest):
    comparison, _ = compared
    present = manifest.select("test").presence(("image", "text", "waveform"))
    for name, one in comparison.pairs.items():
        a, b = name.split("-")
        common = int((present[a] & present[b]).sum())
        assert (one["n"], one["gallery_size"]) == (common, common)
    assert comparison.complete["n"] == int((present["image"] & present["text"] & present["waveform"]).sum())


def test_the_figures_of_joint_queries_are_those_of_measure_on_the_embeddings(compared, manifest):
    comparison, out = compared
    rows = manifest.select("test")
    embeddings = load_file(out / "runs" / "gapless-seed0" / "embeddings.safetensors")
    present = {name: ~torch.isnan(matrix).any(dim=1) for name, matrix in embeddings.items()}
    columns = {key: value for key, value in measured_on(rows).items() if key != "labels"}
    figures = measure(embeddings, **columns, present=present, include=(), joint=[JOINT])
    key = "retrieval/image+waveform_to_text/R@10"
    assert comparison.table["gapless"][key]["mean"] == pytest.approx(figures[key])
    assert comparison.joint["image+waveform_to_text"]["n"] == figures["joint"]["image+waveform_to_text"]["n"]
    assert math.isfinite(comparison.differences["gapless"][key]["low"])


def test_differences_are_under_the_keys_of_the_figures_whatever_the_order_of_the_modalities(compared):
    comparison, out = compared
    differing, figures = comparison.differences["gapless"], comparison.table["gapless"]
    undrawn = ("grouping/", "gap/separability_auc", "gap/wasserstein_uniformity")  # without a paired difference
    assert set(differing) == {key for key in figures if not key.startswith(undrawn)}
    assert list(recipe().modalities) == ["waveform", "text", "image"]
    shown = [
        cell.difference for _, table in pair_tables(read_json(out / "compare.json")) for cell in table.rows["gapless"]
    ]
    assert len(shown) > 20
    assert all(shown)


def test_embeddings_of_a_run_come_in_the_order_that_its_figures_have(tmp_path):
    rows = {"report": torch.eye(3), "ecg": torch.eye(3)}
    save_file(rows, tmp_path / "embeddings.safetensors")
    assert list(load_file(tmp_path / "embeddings.safetensors")) == ["ecg", "report"]
    write_json(tmp_path / "results.json", {"modalities": ["report", "ecg"]})
    assert list(_embeddings_of(tmp_path)) == ["report", "ecg"]


def test_presence_is_that_of_the_manifest(compared, manifest):
    presence = compared[0].presence
    assert presence["rows"] == len(manifest) == sum(presence["patterns"].values())
    assert presence["present"] == {name: int(mask.sum()) for name, mask in manifest.presence().items()}
    assert set(presence["splits"]) == {"train", "validation", "test"}


def test_the_directory_has_a_table_for_each_pair(compared):
    _, out = compared
    titles = [line for line in (out / "pairs.md").read_text().splitlines() if line.startswith("## ")]
    assert len(titles) == 4  # three pairs, and the joint query
    written = json.loads((out / "compare.json").read_text())
    assert {"anchor", "present", "pairs", "complete", "joint", "presence"} <= set(written)


def test_the_report_shows_presence_the_matrix_and_the_pairs(compared, tmp_path):
    comparison, out = compared
    report(out, out=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for heading in ("Every pair of modalities", "A table for each pair", "Which rows have what"):
        assert f"<h2>{heading}</h2>" in page
    for one in comparison.pairs.values():
        assert f"{one['n']} rows, gallery {one['n']}" in page
    assert page.count('class="matrix"') == 2
    assert page.count('class="diagonal"') == 6


def test_one_modality_is_refused(manifest):
    with pytest.raises(UsageError, match="two modalities or more, and the recipe has image"):
        check_comparable(manifest, "test", ["image"])


def test_a_split_without_common_rows_is_refused(phantom):
    half = len(phantom) // 2
    apart = without(phantom, {"image": range(half), "text": range(half, len(phantom))})
    with pytest.raises(DataRefused, match=r"no two modalities have 2 rows of split 'test' in common \(image-text 0\)"):
        check_comparable(apart, "test", ["image", "text"])


def test_a_split_in_which_all_is_absent_is_refused(phantom):
    everything = range(len(phantom))
    nothing = without(phantom, dict.fromkeys(("image", "text", "waveform"), everything))
    with pytest.raises(DataRefused, match="image-text 0, image-waveform 0, text-waveform 0"):
        check_comparable(nothing, "test", ["image", "text", "waveform"])


def test_a_method_that_takes_complete_rows_only_is_refused_before_anything_is_trained(manifest, tmp_path, monkeypatch):
    def refuse(loss):
        raise UsageError("rows lack a modality, and the loss takes complete rows only")

    monkeypatch.setattr("gapless.training.presence.check_takes_present", refuse)
    with pytest.raises(UsageError, match="gapless: rows lack a modality"):
        compare(data=manifest, out=tmp_path / "out", methods=["gapless"], seeds=[0], settings=recipe())
    assert not (tmp_path / "out").exists()


def test_a_joint_query_of_an_unknown_modality_is_refused(manifest, tmp_path):
    with pytest.raises(UsageError, match="'ecg'"):
        compare(data=manifest, out=tmp_path / "out", methods=["gapless"], settings=recipe(), joint=["image+ecg->text"])
