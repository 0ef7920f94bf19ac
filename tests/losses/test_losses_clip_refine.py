"""CLIP-Refine against numpy, its degenerate cases, and a model that keeps what it was when training started."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import tiny_modalities

from gapless.core.errors import UsageError
from gapless.core.geometry import unit_norm
from gapless.losses.base import METHODS, terms_of
from gapless.losses.clip_refine import ClipRefineSettings, refined_distillation
from gapless.losses.contrastive import symmetric_info_nce
from gapless.training.recipes import Recipe
from gapless.training.run import new_model

DIM = 6


def rows(seed: int, num_rows: int = 7, names=("image", "text")) -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return {name: torch.randn(num_rows, DIM, generator=drawn, dtype=torch.float64) for name in names}


def loss_of(**changes):
    return METHODS["clip-refine"].build(ClipRefineSettings(**changes), "text")


def terms(loss, raw, reference):
    return terms_of(loss, {n: unit_norm(x) for n, x in raw.items()}, raw=raw, reference=reference)


def by_numpy(raw, old, blending, factor):
    def softmax(x):
        x = np.exp(x - x.max(axis=1, keepdims=True))
        return x / x.sum(axis=1, keepdims=True)

    total = 0.0
    for first, second in (("image", "text"), ("text", "image")):
        found = softmax(factor * raw[first].numpy() @ raw[second].numpy().T)
        target = softmax(factor * old[first].numpy() @ old[second].numpy().T)
        target = blending * np.eye(len(found)) + (1 - blending) * target
        total += float(np.sum(target * (np.log(target) - np.log(found))))
    return total / (2 * len(found))


@pytest.mark.parametrize(("blending", "factor"), [(0.5, 1.0), (0.2, 3.0)])
def test_the_distillation_is_that_of_numpy(blending, factor):
    raw, old = rows(1), rows(2)
    pairs = ((raw["image"], raw["text"]), (old["image"], old["text"]))
    found = refined_distillation(*pairs, blending, factor)
    assert float(found) == pytest.approx(by_numpy(raw, old, blending, factor), rel=1e-12)


def test_a_model_that_is_the_old_one_loses_nothing_without_blending():
    raw = rows(1)
    pair = (raw["image"], raw["text"])
    assert float(refined_distillation(pair, pair, 0.0)) == pytest.approx(0.0, abs=1e-15)


def test_all_of_the_true_pair_is_the_contrastive_loss_of_the_rows():
    """Blending of 1 leaves nothing of the old model; the products are not cosines."""
    raw, old = rows(1), rows(2)
    found = refined_distillation((raw["image"], raw["text"]), (old["image"], old["text"]), 1.0, 0.5)
    assert float(found) == pytest.approx(float(symmetric_info_nce(raw["image"], raw["text"], 0.5)), rel=1e-12)


def test_the_random_term_of_rows_of_norm_1_is_a_constant_on_average():
    """1 / dim + 1 for each modality: no position is better than another."""
    loss = loss_of()
    values = []
    raw = {name: unit_norm(x) for name, x in rows(3, 64).items()}
    for step in range(100):
        loss.begin_step(0, step)
        values.append(float(terms(loss, raw, raw)["random"]))
    spread = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(2 * (1 / DIM + 1), abs=4 * spread)


def test_both_rows_of_a_pair_are_drawn_to_one_random_row():
    """Its gradient is `2 (x - r) / (n d)`: that of equal rows is equal, and r is standard normal."""
    raw = {name: torch.zeros(500, DIM, dtype=torch.float64, requires_grad=True) for name in ("image", "text")}
    loss = loss_of(distillation_weight=0.0)
    terms(loss, raw, {name: x.detach() for name, x in raw.items()})["total"].backward()
    drawn = -raw["image"].grad * 500 * DIM / 2
    assert torch.equal(raw["image"].grad, raw["text"].grad)
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.06)
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.05)


def test_draws_follow_the_seed_and_the_step():
    raw, found = rows(1), []
    for seed, step in ((0, 1), (0, 1), (0, 2), (1, 1)):
        loss = loss_of()
        loss.begin_step(seed, step)
        found.append(float(terms(loss, raw, raw)["random"]))
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_the_total_has_the_weights_and_the_old_rows_no_gradient():
    raw = {name: x.requires_grad_() for name, x in rows(1, names=("image", "text", "ecg")).items()}
    old = {name: x.requires_grad_() for name, x in rows(2, names=("image", "text", "ecg")).items()}
    found = terms(loss_of(contrastive_weight=0.5, random_weight=2.0, distillation_weight=3.0), raw, old)
    found["total"].backward()
    each = {name: float(value.detach()) for name, value in found.items()}
    expected = 0.5 * each["contrastive"] + 2 * each["random"] + 3 * each["distillation"]
    assert each["total"] == pytest.approx(expected, rel=1e-12)
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in raw.values())
    assert all(x.grad is None for x in old.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"blending": 1.5}, r"blending must be in \[0, 1\]"), ({"logit_factor": 0.0}, "logit_factor must be above 0")],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        ClipRefineSettings(**change)


def test_without_an_old_model_it_says_so():
    with pytest.raises(UsageError, match="compares with the model that training starts from"):
        loss_of()({name: unit_norm(x) for name, x in rows(1).items()})


# The model that keeps what it was


@pytest.fixture
def model():
    recipe = Recipe(tiny_modalities(), embedding_dim=8, vocab_size=64, loss=METHODS["clip-refine"].settings)
    return new_model(recipe, ["a chest", "an arm", "a leg", "a hip"]).train()


def batch_of(model, texts=("a chest", "an arm", "a leg", "a hip")):
    images = [np.full((16, 16), 40 * number, np.uint8) for number in range(len(texts))]
    inputs = {}
    for name, raw in (("image", images), ("text", texts)):
        kind = model.preprocessor(name)
        inputs[name] = kind.collate([kind.prepare(one) for one in raw])
    return inputs


def test_the_kept_model_stays_when_the_other_learns(model):
    batch = batch_of(model)
    with pytest.raises(UsageError, match="keep_reference"):
        model(batch)
    model.keep_reference()
    before = model.reference_rows(batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(batch).loss.backward()
    optimizer.step()
    after = model.reference_rows(batch)
    assert all(torch.equal(before[name], after[name]) for name in before)
    model.eval()
    assert not torch.equal(model.project_all(batch)["image"], before["image"])
    assert not [name for name in model.state_dict() if "reference" in name]


def test_micro_batches_change_nothing(model):
    """The encoders are in evaluation mode, without dropout and with the statistics of no batch."""
    model.keep_reference()
    batch = batch_of(model)
    for encoder in model.encoders.values():
        encoder.eval()
    whole = model(batch)
    whole.loss.backward()
    gradient = model.heads["text"][0].weight.grad.clone()
    model.zero_grad()
    model.micro_batch_size = 2
    model.loss.begin_step(0, 0)
    parts = model(batch)
    parts.loss.backward()
    assert float(parts.terms["total"]) == pytest.approx(float(whole.terms["total"]), rel=1e-5)
    assert torch.allclose(model.heads["text"][0].weight.grad, gradient, atol=1e-6)


def test_its_settings_for_frozen_rows_multiply_cosines():
    method = METHODS["clip-refine"]
    assert method.frozen_settings == replace(method.settings, logit_factor=100.0)
