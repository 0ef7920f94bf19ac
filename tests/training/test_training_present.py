"""Training on rows that lack modalities: a whole run, the default anchor, modality dropout, and what is refused."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from absent_rows import NAMES, three_modalities, without

from gapless.core.errors import DataRefused, UsageError
from gapless.losses.base import METHODS, Method
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.evaluate import evaluate
from gapless.training.presence import default_anchor, trainable_rows
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run

TRAINING = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "save_strategy": "no",
    "logging_steps": 1,
    "eval_strategy": "epoch",
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return write_phantom(
        tmp_path_factory.mktemp("phantom") / "data", num_pairs=170, num_validation=20, num_test=30, image_size=16
    )


@pytest.fixture(scope="module")
def manifest(complete):
    """A third of the rows lacks a waveform, a few an image or a caption, and two have a caption alone."""
    return without(complete, {"waveform": range(0, 170, 3), "image": [1, 3, 20, 60, 100, 160], "text": [2, 5, 40, 70]})


def recipe(**changes):
    settings = {"modalities": three_modalities(), "embedding_dim": 24, "vocab_size": 400, "training": TRAINING}
    return Recipe(**{**settings, "loss": GapClosingSettings(mask_duplicates=True), **changes})


def run_of(settings, data, method="gapless-published"):
    return Run("three", method, 0, settings, data.fingerprint)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("changes", [{}, {"micro_batch_size": 5, "modality_dropout": {"image": 0.5, "waveform": 0.2}}])
def test_a_run_on_rows_that_lack_modalities(manifest, tmp_path, changes, caplog):
    run = run_of(recipe(**changes), manifest)
    train_run(run, manifest, tmp_path / "run")
    logged = [line for line in lines_of(tmp_path / "run") if "loss/total" in line]
    assert len(logged) == 2 * (sum(split == "train" for split in manifest.table["split"].to_pylist()) // 16)
    assert all(0 < line["loss/compared_rows"] < 32 for line in logged)
    assert all(line["loss/skipped_pairs"] in (0, 1) and line["loss/total"] > 0 for line in logged)
    assert "left out: they have fewer than two of image, text, waveform" in caplog.text
    assert GaplessModel.from_pretrained(tmp_path / "run" / "model").loss.anchor == "image"
    figures = evaluate(tmp_path / "run", data=manifest, num_bootstrap=0)
    columns = [manifest.select("test").table[name].to_pylist() for name in ("image", "captions", "waveform")]
    gone = sum(any(cell is None for cell in cells) for cells in zip(*columns, strict=True))
    assert figures.complete["n"] == 30 - gone
    assert gone > 3
    have = {
        name: {row for row, cell in enumerate(cells) if cell is not None}
        for name, cells in zip(NAMES, columns, strict=True)
    }
    for first, second in (("image", "text"), ("image", "waveform"), ("text", "waveform")):
        n = len(have[first] & have[second])
        assert figures.pairs[f"{first}-{second}"] == {"n": n, "gallery_size": n}


def test_the_same_run_twice_has_the_same_losses(manifest, tmp_path):
    """Hidden modalities are drawn from (seed, epoch, sample id)."""
    run = run_of(recipe(modality_dropout={"waveform": 0.5}), manifest)
    for name in ("one", "other"):
        train_run(run, manifest, tmp_path / name)
    one, other = (lines_of(tmp_path / name) for name in ("one", "other"))
    assert [line.get("loss/total") for line in one] == [line.get("loss/total") for line in other]


def test_complete_rows_are_trained_as_before(complete, tmp_path):
    train_run(run_of(recipe(), complete), complete, tmp_path / "run")
    assert not any("loss/skipped_pairs" in line for line in lines_of(tmp_path / "run"))


# --- the anchor -------------------------------------------------------------------------------------------------------


def test_the_default_anchor_is_what_most_rows_share(manifest):
    def masks(**rows):
        return {name: torch.tensor(mask).bool().numpy() for name, mask in rows.items()}

    assert default_anchor(masks(image=[1, 1, 1], text=[1, 1, 1], ecg=[1, 0, 1])) == "text"
    assert default_anchor(masks(image=[1, 1, 1], text=[1, 0, 1], ecg=[0, 1, 1])) == "image"
    # four texts, two of them with another modality: a text alone is shared with nothing
    assert default_anchor(masks(image=[1, 1, 1, 0, 0], text=[0, 1, 0, 1, 1], ecg=[1, 0, 1, 0, 0])) == "image"
    assert default_anchor(masks(ecg=[1, 1], labs=[1, 1])) == "labs"
    settings, rows = trainable_rows(recipe(), without(manifest, {"text": range(0, 120, 2)}))
    assert settings.anchor == "image"
    assert len(rows) == 147  # the others have one modality


def test_an_anchor_that_few_rows_have_is_refused_before_anything_starts(complete, tmp_path):
    few = without(complete, {"waveform": range(0, 100)})
    with pytest.raises(
        UsageError,
        match=r"anchor 'waveform' is in \d+ of 120 training rows, fewer than half of them; use --anchor text",
    ):
        train_run(run_of(recipe(anchor="waveform"), few), few, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    every = recipe(anchor="waveform", loss=GapClosingSettings(pairs="all"))
    assert trainable_rows(every, few.select("train"))[0].anchor == "waveform"


def test_a_modality_that_no_row_has_is_refused_before_anything_starts(complete, tmp_path):
    none = without(complete, {"waveform": range(170)})
    with pytest.raises(DataRefused, match=r"no training row of .* has 'waveform' beside another modality"):
        train_run(run_of(recipe(), none), none, tmp_path / "run")
    alone = without(complete, {"waveform": range(1, 170), "image": [0], "text": [0]})
    with pytest.raises(DataRefused, match="has 'waveform' beside another"):
        train_run(run_of(recipe(), alone), alone, tmp_path / "run")
    modalities = {**three_modalities(), "labs": three_modalities()["waveform"]}
    with pytest.raises(UsageError, match="has no labs"):
        train_run(run_of(recipe(modalities=modalities), complete), complete, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_of_one_modality_are_left_out_and_too_few_others_refused(complete, tmp_path):
    rest = without(complete, {"waveform": range(15, 120), "image": range(15, 120)})
    with pytest.raises(DataRefused, match="fewer than one batch of 16"):
        train_run(run_of(recipe(), rest), rest, tmp_path / "run")


class CompleteOnly(torch.nn.Module):
    """A loss of somebody else, which knows no masks."""

    def __init__(self, settings, anchor):
        super().__init__()
        self.anchor = anchor

    def forward(self, embeddings, *, positives=None):
        raise AssertionError("it must be refused before it is called")


def test_a_loss_of_complete_rows_is_refused_before_anything_starts(manifest, tmp_path, monkeypatch):
    settings = replace(METHODS["align-only"].settings, temperature=0.3)
    changed = Method("align-only", "", settings, CompleteOnly)
    others = {name: method for name, method in METHODS.items() if type(method.settings) is not GapClosingSettings}
    monkeypatch.setattr("gapless.losses.base.METHODS", {**others, "align-only": changed})
    with pytest.raises(UsageError, match="the loss CompleteOnly takes complete rows only"):
        trainable_rows(recipe(loss=settings), manifest.select("train"))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"modality_dropout": {"ecg": 0.1}},
            "unknown modality of modality_dropout 'ecg'; known: image",
        ),
        ({"modality_dropout": {"image": 1.0}}, r"modality_dropout.image must be at least 0 and below 1, got 1.0"),
        ({"modality_dropout": {"image": True}}, r"modality_dropout.image must be at least 0"),
        ({"loss": GapClosingSettings(modality_weights={"ecg+text": 1.0})}, "loss.modality_weights names 'ecg'"),
        (
            {"loss": GapClosingSettings(pairs=[["image", "mri"]])},
            "loss.pairs names 'mri', and the modalities are",
        ),
        ({"loss": GapClosingSettings(alignment_modality_weights={"mr": 1.0})}, "alignment_modality_weights names 'mr'"),
    ],
)
def test_a_setting_that_does_not_fit_the_modalities_is_named(changes, message):
    with pytest.raises(UsageError, match=message):
        recipe(**changes)


def test_two_modalities_have_none_to_hide():
    two = {name: spec for name, spec in three_modalities().items() if name != "waveform"}
    with pytest.raises(UsageError, match="modality_dropout needs three modalities, because a row keeps two"):
        recipe(modalities=two, modality_dropout={"image": 0.1})
    assert recipe(modalities=two, modality_dropout={"image": 0.0}).modality_dropout == {"image": 0.0}


def test_the_helper_makes_nulls(complete):
    """The control of this file: the rows are absent, and were there before."""
    made = without(complete, {"waveform": [0]})
    assert made.table["waveform"][0].as_py() is None
    assert complete.table["waveform"].null_count == 0
    assert made.table.schema.field("waveform").type == pa.list_(pa.float32())
    assert set(NAMES) <= set(complete.modalities)
