"""Figures during a training on rows that lack modalities are those that `evaluate` gives, pair by pair."""

import json
import math

import pytest
import torch
from absent_rows import three_modalities, without

from gapless.inference.presence import common_rows
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.evaluate import evaluate
from gapless.training.evaluator import GapAndRetrieval
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run

TRAINING = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "save_strategy": "no",
    "logging_steps": 2,
    "eval_strategy": "epoch",
    "use_cpu": True,
}
NAMES = ("image", "text", "waveform")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return write_phantom(folder, num_pairs=52, num_validation=16, num_test=4, image_size=16, workers=1)


def validation_rows(manifest):
    splits = manifest.table["split"].to_pylist()
    return [row for row, split in enumerate(splits) if split == "validation"]


def trained(manifest, out, evaluator=None, epochs=1):
    """The figures of the evaluation that a run logs."""
    modalities = dict(reversed(three_modalities().items()))
    recipe = Recipe(modalities, embedding_dim=24, vocab_size=400, training={**TRAINING, "num_train_epochs": epochs})
    train_run(Run("three", "gapless", 0, recipe, manifest.fingerprint), manifest, out, evaluator=evaluator)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {key.removeprefix("eval/"): value for key, value in lines[-1].items() if key.startswith("eval/")}


@pytest.fixture(scope="module")
def run(phantom, tmp_path_factory):
    """A run of which three validation rows alone are complete."""
    rows = validation_rows(phantom)
    manifest = without(phantom, {"waveform": rows[3:9], "image": rows[9:13], "text": rows[13:]})
    out = tmp_path_factory.mktemp("run") / "run"
    return manifest, out, trained(manifest, out)


def test_each_pair_is_measured_on_its_own_rows(run):
    manifest, _, logged = run
    common = common_rows(manifest.select("validation"), NAMES)
    assert {key: value for key, value in logged.items() if key.startswith("n/")} == {
        f"n/{pair}": count for pair, count in common.items()
    }
    assert sorted(common.values()) == [6, 7, 9]
    assert (logged["n"], logged["n@complete"]) == (16, 3)
    assert "gallery_size" not in logged  # the pairs have different ones


def test_the_figures_are_those_of_evaluate(run, tmp_path):
    manifest, out, logged = run
    figures = evaluate(out, data=manifest, split="validation", num_bootstrap=0, out=tmp_path / "figures").figures
    compared = {key: value for key, value in logged.items() if key.startswith(("gap/", "retrieval/"))}
    assert {"gap/margin/image-text", "gap/margin/text-waveform@complete", "retrieval/mean/MRR"} <= set(compared)
    for key, value in compared.items():
        if "group_unbiased" not in key:  # groups are for the intervals of `evaluate`
            assert value == pytest.approx(figures[key], abs=1e-5), key


def test_an_evaluator_of_complete_rows_is_given_no_other(run, tmp_path):
    seen = []

    class Own:
        primary = "gap/margin"

        def __call__(self, rows):
            seen.append({name: matrix.clone() for name, matrix in rows.items()})
            return {"gap/margin": 0.5}

    assert trained(run[0], tmp_path / "own", Own()) == {"gap/margin": 0.5}
    assert {len(matrix) for matrix in seen[-1].values()} == {3}
    assert not any(matrix.isnan().any() for matrix in seen[-1].values())


def test_of_complete_rows_nothing_is_added():
    rows = {name: torch.nn.functional.normalize(torch.randn(9, 4), dim=1) for name in NAMES[:2]}
    assert set(GapAndRetrieval()(rows)) >= {"n", "gallery_size", "gap/margin"}
    assert not [key for key in GapAndRetrieval()(rows) if "@complete" in key or key.startswith("n/")]


def test_a_modality_that_no_validation_row_has_is_left_out():
    rows = {name: torch.nn.functional.normalize(torch.randn(9, 4), dim=1) for name in NAMES}
    rows["waveform"] = torch.full((9, 4), math.nan)
    two = GapAndRetrieval()({name: rows[name] for name in NAMES[:2]})
    assert GapAndRetrieval()(rows) == two
