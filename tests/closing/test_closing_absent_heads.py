"""Trained heads on rows that lack modalities: masked training, its choice, and the saved model on such rows."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_closing_absent import NAMES, NUM_ROWS, holed, masks_of, rows_of

from gapless.cli.main import main
from gapless.closing.auto import AutoSettings
from gapless.closing.close import close_gap, pairs_of
from gapless.closing.head_training import train_adapter
from gapless.closing.stack import StackSettings
from gapless.closing.trained_heads import adapter_settings
from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.store import read_embeddings
from gapless.inference.embed import embed_dataset
from gapless.losses.base import METHODS, Method
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel


def quick(loss="gapless", **changes):
    return replace(adapter_settings(loss), hidden=8, num_epochs=6, num_evaluations=2, batch_size=64, **changes)


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """The result of masked heads, and the same rows with something else where they lack a modality."""
    home = tmp_path_factory.mktemp("closed")
    rows, masks = rows_of(), masks_of()
    return [
        close_gap(holed(rows, masks, fill), None, quick(), "adapter", out=home / f"{number}", present=masks)
        for number, fill in enumerate((np.nan, 1e20))
    ]


def test_what_an_absent_row_holds_changes_nothing(closed):
    one, two = closed
    assert one.results["figures"] == two.results["figures"]
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, two.model.state_dict()[name]), name
        assert bool(tensor.isfinite().all())


def test_the_log_and_the_figures_stand_on_each_pairs_own_rows(closed):
    logged = [json.loads(line) for line in (closed[0].path / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in logged if "loss/compared_rows" in line]
    assert trained
    assert all(line["loss/skipped_pairs"] == 0 for line in trained)
    evaluated = [line for line in logged if "eval/retrieval/mean/MRR" in line]
    assert evaluated
    assert all("eval/retrieval/ecg_to_text/MRR" in line and "eval/pairs" not in line for line in evaluated)
    pairs = closed[0].results["pairs"]
    assert {one["n"] for one in pairs.values()} != {closed[0].results["n"]}


def test_all_present_gives_the_weights_of_complete_rows_to_the_bit(tmp_path):
    """Masks of ones go through the masked loss; the control is one row that lacks one modality."""
    pairs = pairs_of(rows_of(), None, quick(), 0, None, None, None, None)[0]
    every = {name: np.ones(NUM_ROWS, dtype=bool) for name in NAMES}
    fewer = {name: mask.copy() for name, mask in every.items()}
    fewer["ecg"][pairs.train[0]] = False
    models = [
        train_adapter(replace(pairs, present=present), quick(), 0, tmp_path / f"{number}").state_dict()
        for number, present in enumerate((None, every, fewer))
    ]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
    assert not all(torch.equal(tensor, models[2][name]) for name, tensor in models[0].items())


def test_masked_rows_teach_more_than_the_complete_ones(tmp_path):
    """About one row in twelve is complete. Both trainings take as many steps; the judge knows all rows."""
    rows, random = rows_of(), np.random.default_rng(3)
    masks = {name: np.ones(NUM_ROWS, dtype=bool) for name in NAMES}
    masks["ecg"] = random.random(NUM_ROWS) < 0.55
    masks["image"] = ~masks["ecg"] | (random.random(NUM_ROWS) < 0.15)
    settings = replace(quick("clip"), head="linear", embedding_dim=8, num_epochs=60, learning_rate=0.02, max_steps=60)
    masked = pairs_of(holed(rows, masks), None, settings, 0, None, None, None, None, masks)[0]
    whole = pairs_of(rows, None, settings, 0, None, None, None, None)[0]
    complete = whole.train[np.all([mask[whole.train] for mask in masks.values()], axis=0)]
    assert 4 <= len(complete) <= 12
    ranks = []
    for number, pairs in enumerate((masked, replace(whole, train=complete))):
        model = train_adapter(pairs, settings, 0, tmp_path / f"{number}")
        everyone = embed_dataset(model, whole.dataset(whole.validation))
        ranks.append(measure(everyone, include=("retrieval",))["retrieval/mean/MRR"])
    assert ranks[0] > ranks[1] + 0.05


@pytest.mark.parametrize("how", ["concatenate", "chain"])
def test_a_stack_with_heads_takes_rows_that_lack_modalities(tmp_path, how):
    parts = {"methods": ("center", "adapter"), "how": how, "settings": {"adapter": quick()}}
    rows, masks = rows_of(), masks_of()
    made = close_gap(holed(rows, masks), None, StackSettings(**parts), "stack", out=tmp_path / "a", present=masks)
    assert np.isfinite(made.figures["retrieval/mean/MRR"])
    assert all(bool(tensor.isfinite().all()) for tensor in made.model.state_dict().values())


def test_auto_judges_the_heads(tmp_path, monkeypatch):
    monkeypatch.setattr("gapless.closing.trained_heads.TrainedHeads.candidates", (quick(),))
    settings = AutoSettings(methods=("adapter",), num_bootstrap=20, num_folds=2, num_repeats=1)
    made = close_gap(holed(rows_of(), masks_of()), settings=settings, out=tmp_path / "a", present=masks_of())
    judged = {one["name"]: one for one in made.results["choice"]["candidates"]}
    assert judged["adapter"]["reason"] == ""
    assert "retrieval/mean/MRR" in judged["adapter"]["figures"]


def test_the_saved_model_embeds_rows_that_lack_modalities(closed, tmp_path, capsys):
    rows, masks = rows_of(1), masks_of(1)
    words = []
    for name, matrix in holed(rows, masks).items():
        np.save(tmp_path / f"{name}.npy", matrix)
        words += [f"--{name}", str(tmp_path / f"{name}.npy")]
    arguments = [*words, "--missing", "keep", "--out", str(tmp_path / "emb")]
    assert main(["embed", str(closed[0].path), *arguments]) == 0, capsys.readouterr().err
    stored = read_embeddings(tmp_path / "emb", missing="keep")
    model = GaplessModel.from_pretrained(closed[0].path)
    for name, mask in masks.items():
        assert (stored.presence[name] == mask).all()
        expected = model.encode(name, rows[name][mask])
        np.testing.assert_allclose(stored.embeddings[name][mask], expected.numpy(), atol=1e-6)


def test_what_no_training_row_compares_is_refused(tmp_path):
    masks = masks_of()
    masks["ecg"] = ~masks["text"]
    masks["image"] |= True
    with pytest.raises(DataRefused, match="0 training rows have both ecg and text, and 2 are needed"):
        close_gap(rows_of(), None, quick(), "adapter", out=tmp_path / "a", present=masks)
    every = replace(quick(), loss=replace(quick().loss, pairs="all"))
    assert close_gap(rows_of(), None, every, "adapter", out=tmp_path / "b", present=masks).path.is_dir()
    misspelt = replace(quick(), loss=replace(quick().loss, pairs=[["image", "tekst"]]))
    with pytest.raises(UsageError, match=r"loss.pairs names 'tekst'"):
        close_gap(rows_of(), None, misspelt, "adapter", out=tmp_path / "c", present=masks)
    assert not list(tmp_path.glob("*a")) or not (tmp_path / "a").exists()


def test_a_loss_of_complete_rows_is_refused_by_name(tmp_path, monkeypatch):
    class Whole(torch.nn.Module):
        def __init__(self, settings, anchor):
            super().__init__()

        def forward(self, embeddings, *, positives=None):
            raise AssertionError("no step may be made")

    @dataclass(frozen=True)
    class WholeSettings:
        strength: float = 1.0

    METHODS.names()
    monkeypatch.setitem(METHODS._things, "whole", Method("whole", "", WholeSettings(), Whole))
    with pytest.raises(UsageError, match="the loss Whole takes complete rows only"):
        close_gap(
            rows_of(), None, replace(quick(), loss=WholeSettings()), "adapter", out=tmp_path / "a", present=masks_of()
        )
    assert not (tmp_path / "a").exists()
