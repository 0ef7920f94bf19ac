"""The controls of a comparison: `clip` closed afterwards, fitted on training rows and never on test rows."""

import logging
from pathlib import Path

import pytest
import torch
from fakes import tiny_modalities
from safetensors.torch import load_file
from torch.nn.functional import normalize

import gapless
from gapless.core.errors import UsageError
from gapless.core.files import read_json
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.study.closed_afterwards import closed_runs
from gapless.study.facts import facts_of
from gapless.study.report import compared_pair
from gapless.study.table import paper_table
from gapless.training.evaluate import EMBEDDINGS, embed_split
from gapless.training.recipes import Recipe

TRAINING = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "logging_steps": 1, "use_cpu": True}


def recipe() -> Recipe:
    return Recipe(modalities=tiny_modalities(), embedding_dim=8, vocab_size=200, training=TRAINING)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of one run of `clip`."""
    folder = tmp_path_factory.mktemp("controls")
    write_phantom(folder / "data", num_pairs=48, num_validation=8, num_test=12, image_size=16)
    gapless.compare(**call(folder))
    return folder


def call(folder: Path) -> dict:
    options = {"methods": ["clip"], "seeds": [0], "settings": recipe(), "num_bootstrap": 10}
    return {"data": folder / "data", "out": folder / "out", **options}


def test_centring_is_by_the_means_of_the_training_rows(place: Path) -> None:
    runs, manifest = place / "out" / "runs", Manifest.read(place / "data")
    model = GaplessModel.from_pretrained(runs / "clip-seed0" / "model")
    training = embed_split(model, manifest.select("train"))
    before, after = (load_file(runs / name / EMBEDDINGS) for name in ("clip-seed0", "clip+center-seed0"))
    for name, rows in before.items():
        expected = normalize(rows - training[name].mean(0), dim=1)
        assert torch.allclose(after[name], expected, atol=1e-4)
        by_test = normalize(rows - rows.mean(0), dim=1)  # the control: test rows that were fitted on
        assert not torch.allclose(after[name], by_test, atol=1e-2)


def test_the_rows_stand_in_the_table_and_are_marked(place: Path) -> None:
    comparison = read_json(place / "out" / "compare.json")
    assert comparison["methods"] == ["clip", "clip + center", "clip + cca"]
    assert comparison["closed_afterwards"] == {"clip + center": "center", "clip + cca": "cca"}
    assert comparison["table"].keys() == comparison["differences"].keys() | {"clip"}
    table = paper_table(comparison)
    assert list(table.rows)[:3] == comparison["methods"]
    (note,) = [note for note in table.notes if "closed afterwards" in note]
    assert note.startswith("clip + center and clip + cca: closed afterwards.")
    assert note in (place / "out" / "table.md").read_text()
    assert ("Closed afterwards", "clip + center, clip + cca") in facts_of(comparison)
    assert compared_pair(comparison) == ["clip"]  # a control is not the method that a report is about
    results = read_json(place / "out" / "runs" / "clip+cca-seed0" / "results.json")
    assert (results["method"], results["closed_afterwards"], results["n"]) == ("clip + cca", "cca", 12)


def test_a_control_is_a_model_of_vectors(place: Path) -> None:
    model = GaplessModel.from_pretrained(place / "out" / "runs" / "clip+center-seed0" / "model")
    rows = load_file(place / "out" / "runs" / "clip-seed0" / EMBEDDINGS)["image"]
    closed = load_file(place / "out" / "runs" / "clip+center-seed0" / EMBEDDINGS)["image"]
    assert torch.allclose(model.encode("image", rows), closed, atol=1e-6)


def test_they_can_be_left_out_and_come_back(place: Path) -> None:
    plain = gapless.compare(**call(place), closed_afterwards=())
    assert plain.methods == ["clip"]
    assert "closed_afterwards" not in plain.as_json()
    again = gapless.compare(**call(place), closed_afterwards=["center"])
    assert again.methods == ["clip", "clip + center"]


def test_methods_that_train_or_do_not_exist_are_refused_before_anything_is_trained(place: Path) -> None:
    for name in ("adapter", "auto", "centre"):
        with pytest.raises(UsageError, match=f"unknown closing method that trains nothing '{name}'"):
            gapless.compare(**(call(place) | {"out": place / "other"}), closed_afterwards=[name])
    assert not (place / "other").exists()


def test_without_clip_there_is_nothing_to_close(place: Path) -> None:
    assert closed_runs({"gapless": [place]}, Manifest.read(place / "data"), place, "test", 0, ["center"]) == {}


def test_what_cannot_be_fitted_is_left_out_with_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Three modalities are more than cca takes; here the run is made to have a third."""
    from gapless.study import closed_afterwards

    honest = closed_afterwards.embed_split
    monkeypatch.setattr(
        closed_afterwards, "embed_split", lambda *args: (rows := honest(*args)) | {"wave": rows["image"].roll(1, 0)}
    )
    source = place / "out" / "runs" / "clip-seed0"
    with caplog.at_level(logging.WARNING):
        closed = closed_runs({"clip": [source]}, Manifest.read(place / "data"), tmp_path, "test", 0, ["cca"])
    assert closed == {}
    assert "clip + cca is left out of the comparison: cca takes two modalities, got 3" in caplog.text
