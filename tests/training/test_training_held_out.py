"""Figures of held-out pairs against plain formulas, and trainings whose closing weight follows them."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from fakes import tiny_modalities
from scipy.optimize import minimize_scalar

from gapless.closing.close import close_gap
from gapless.closing.trained_heads import adapter_settings
from gapless.losses.base import METHODS
from gapless.losses.contrastive import symmetric_info_nce
from gapless.manifest.readers.phantom import write_phantom
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel
from gapless.models.card import CardFacts, model_card
from gapless.training.closing import num_rows_measured
from gapless.training.held_out import (
    KeptSamples,
    calibrated_losses,
    figures_of_pairs,
    reciprocal_ranks,
    sample_of,
    unbiased_gap,
)
from gapless.training.recipes import Recipe
from gapless.training.run import Run, train_run


def pairs(num_rows: int = 60, noise: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    shared = torch.randn(num_rows, 16, generator=drawn)
    rows = (shared + noise * torch.randn(num_rows, 16, generator=drawn) for _ in range(2))
    a, b = (torch.nn.functional.normalize(one, dim=1) for one in rows)
    return a, b


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_calibrated_loss_is_the_least_over_all_temperatures(noise):
    a, b = pairs(noise=noise)
    losses, scale = calibrated_losses(a, b)
    best = minimize_scalar(lambda s: float(symmetric_info_nce(a, b, s)), bounds=(0.0, 200.0), method="bounded")
    assert float(losses.mean()) == pytest.approx(best.fun, abs=1e-3)
    assert float(symmetric_info_nce(a, b, scale)) == pytest.approx(float(losses.mean()), abs=1e-5)


def test_pairs_that_say_nothing_of_each_other_have_the_loss_of_chance():
    a, _ = pairs()
    losses, _ = calibrated_losses(a, a.flip(0))
    assert float(losses.mean()) == pytest.approx(math.log(len(a)), rel=0.02)


def test_readiness_is_that_of_the_loss_and_the_others_are_those_of_measure():
    a, b = pairs(noise=1.5)
    figures = figures_of_pairs({"image": a, "text": b}, [("image", "text")])
    assert figures is not None
    assert figures.readiness == pytest.approx(1 - float(calibrated_losses(a, b)[0].mean()) / math.log(len(a)))
    told = measure({"image": a, "text": b}, include=("gap", "retrieval"))
    assert figures.recall == pytest.approx(told["retrieval/mean/MRR"], abs=1e-6)
    assert figures.gap == pytest.approx(told["gap/centroid_distance_unbiased"], abs=1e-6)
    entropies = []
    for rows in (a, b):
        share = np.linalg.svd((rows - rows.mean(dim=0)).numpy(), compute_uv=False)
        share = share / share.sum()
        entropies.append(-float(np.sum(share * np.log(share))))
    assert figures.effective_rank == pytest.approx(math.exp(min(entropies)), rel=1e-4)


def test_tied_rows_share_their_ranks():
    same = torch.ones(5, 3) / math.sqrt(3)
    assert reciprocal_ranks(same, same).tolist() == pytest.approx([1 / 3] * 10)
    assert unbiased_gap(same, same) == 0.0


@pytest.mark.parametrize("collapsed", ["image", "text"])
def test_a_modality_whose_rows_are_all_the_same_has_no_rank_left(collapsed):
    """Whichever comes first: NaN is neither above nor below the rank of the other."""
    a, b = pairs()
    rows = {"image": a, "text": b}
    rows[collapsed] = rows[collapsed][:1].expand(60, 16)
    assert figures_of_pairs(rows, [("image", "text")]).effective_rank == 0.0


def test_rows_that_lack_a_modality_are_left_out_of_its_pairs():
    a, b = pairs(80)
    holes = b.clone()
    holes[40:] = torch.nan
    with_holes = figures_of_pairs({"image": a, "text": holes}, [("image", "text")])
    alone = figures_of_pairs({"image": a[:40], "text": b[:40]}, [("image", "text")])
    assert with_holes == alone
    assert figures_of_pairs({"image": a[:8], "text": b[:8]}, [("image", "text")]) is None


def test_the_sample_is_the_same_each_time_and_read_once():
    class Counted(torch.utils.data.Dataset):
        def __init__(self):
            self.reads = 0

        def __len__(self):
            return 50

        def __getitem__(self, row):
            self.reads += 1
            return {"row": row, "values": torch.zeros(4)}

    data = Counted()
    sample = sample_of(data, 20)
    assert isinstance(sample, KeptSamples)
    first, second = ([sample[i]["row"] for i in range(len(sample))] for _ in range(2))
    assert first == second == sorted(first)
    assert data.reads == len(sample) == 20


def test_a_measurement_costs_a_tenth_of_the_rows_of_the_steps_between():
    assert num_rows_measured(max_steps=64, batch_size=256) == 128
    assert num_rows_measured(max_steps=180, batch_size=240) == 216
    assert num_rows_measured(max_steps=100_000, batch_size=4096) == 1024


# Trainings


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(
        tmp_path_factory.mktemp("data") / "phantom", num_pairs=80, num_validation=40, num_test=8, image_size=16
    )


def recipe(**changes) -> Recipe:
    training = {"num_train_epochs": 4, "per_device_train_batch_size": 8, "eval_strategy": "no", "save_strategy": "no"}
    settings = METHODS["gapless-held-out"].settings
    return Recipe(tiny_modalities(), embedding_dim=24, vocab_size=400, loss=settings, training={**training, **changes})


def trained(data, out, resume=False, **training):
    train_run(Run("tiny", "gapless-held-out", 0, recipe(**training), data.fingerprint), data, out, resume=resume)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def followed(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, trained(phantom, out, save_strategy="steps", save_steps=7, save_total_limit=1)


def test_the_log_the_model_and_its_card_say_what_the_weight_followed(followed):
    out, lines = followed
    told = [line for line in lines if "closing/readiness" in line]
    assert len(told) >= 2
    assert {"closing/alignment_weight", "closing/MRR", "closing/gap", "closing/effective_rank"} <= told[0].keys()
    model = GaplessModel.from_pretrained(out / "model")
    sentence = model.config.loss["followed"]["sentence"]
    assert f"closing: {sentence}" in model_card(model, CardFacts("model", {"figures": {}}))


def test_the_weights_in_force_are_those_of_the_controller(phantom, tmp_path, monkeypatch):
    """An untrained model has earned nothing: its alignment must have no weight at the last step, as by the clock."""
    from gapless.training import trainer as trainers

    kept = []
    log = trainers.AlignerTrainer.log

    def noted(self, logs, *args, **kwargs):
        if "closing/readiness" in logs:
            kept.append((self, logs["closing/alignment_weight"]))
        log(self, logs, *args, **kwargs)

    monkeypatch.setattr(trainers.AlignerTrainer, "log", noted)
    trained(phantom, tmp_path / "run", learning_rate=1e-9)
    trainer, weight = kept[-1]
    assert trainer.loss.closing_limit(1.0) == METHODS["gapless-held-out"].settings.alignment_weight[-1][1]
    assert weight < 0.2 * trainer.loss.closing_limit(1.0)
    assert len(kept) > 1
    assert trainer.loss._alignment_weight == pytest.approx(kept[-2][1])


def test_a_run_that_is_interrupted_goes_on_to_the_bit(followed, phantom, tmp_path, monkeypatch):
    out, lines = followed
    from gapless.training import callbacks

    end = callbacks.StopRequest.on_step_end

    def stopping(self, args, state, control, **kwargs):
        if state.global_step == 9:
            self.make()
        end(self, args, state, control, **kwargs)

    monkeypatch.setattr(callbacks.StopRequest, "on_step_end", stopping)
    again = tmp_path / "again"
    with pytest.raises(Exception, match="stopped by SIGTERM at step 9"):
        trained(phantom, again, save_strategy="steps", save_steps=7, save_total_limit=1)
    monkeypatch.undo()
    resumed = trained(phantom, again, resume=True, save_strategy="steps", save_steps=7, save_total_limit=1)
    assert [line for line in resumed if "closing/gap" in line] == [line for line in lines if "closing/gap" in line]
    weights = [GaplessModel.from_pretrained(run / "model").state_dict() for run in (out, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_without_validation_rows_the_clock_says_that_it_is_followed(tmp_path, caplog):
    data = write_phantom(tmp_path / "data", num_pairs=24, num_validation=4, num_test=4, image_size=16)
    with caplog.at_level(logging.WARNING):
        lines = trained(data, tmp_path / "run", num_train_epochs=1, logging_steps=1)
    assert "follow the clock" in caplog.text
    assert not any("closing/readiness" in line for line in lines)


@pytest.mark.parametrize("lacks", [False, True])
def test_heads_on_frozen_rows_follow_too(tmp_path, lacks):
    a, b = (one.numpy() for one in pairs(400, noise=1.0))
    present = {"text": np.arange(400) % 5 > 0} if lacks else None
    settings = adapter_settings("gapless-held-out")
    closed = close_gap(
        {"image": a, "text": b, "report": b[:, ::-1].copy()} if lacks else {"image": a, "text": b},
        settings=type(settings)(
            **{**vars(settings), "max_steps": 20, "hidden": 32, "embedding_dim": 16, "validation_share": 0.2}
        ),
        out=tmp_path / "closed",
        present=present,
    )
    assert closed.model.config.loss["followed"]["readiness"] > 0.1
