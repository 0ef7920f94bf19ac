"""Cached accumulation: the gradient of the large batch, the memory of one micro-batch."""

import weakref
from functools import partial

import pytest
import torch
from torch import nn

from gapless.losses.engine import cached
from gapless.losses.engine.cached import cached_embeddings, split_batch
from gapless.losses.gap_closing import GapClosingLoss


class Alive:
    """Counts activations that are held at one time, by the death of the memory behind them."""

    now = peak = 0

    @classmethod
    def activation(cls, x):
        memory = x.detach().float().numpy().copy()
        cls.now += 1
        cls.peak = max(cls.peak, cls.now)
        weakref.finalize(memory, cls.died)
        return torch.from_numpy(memory)

    @classmethod
    def died(cls):
        cls.now -= 1


class Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(Alive.activation(x))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        assert ctx.saved_tensors
        return gradient


@pytest.fixture
def towers():
    torch.manual_seed(0)

    def tower():
        return nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Dropout(0.3), nn.LayerNorm(32), nn.Linear(32, 8))

    return nn.ModuleDict({"image": tower(), "text": tower()})


def encode(towers, batch):
    return {name: nn.functional.normalize(Activation.apply(towers[name](x["x"])), dim=1) for name, x in batch.items()}


def gradients(towers, loss, embeddings_of):
    for module in (towers, loss):
        module.zero_grad()
    generator = torch.Generator().manual_seed(1)
    batch = {name: {"x": torch.randn(37, 10, generator=generator)} for name in towers}
    torch.manual_seed(2)  # of the dropout
    Alive.now = Alive.peak = 0
    terms = loss(embeddings_of(partial(encode, towers), split_batch(batch, 8)))
    terms.total.backward()
    return [terms.total, *(p.grad for module in (towers, loss) for p in module.parameters())]


def all_at_once(encode, micro_batches):
    """The large batch with every activation kept: the reference, with the same dropout masks."""
    parts = [encode(micro_batch) for micro_batch in micro_batches]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_the_gradient_is_that_of_the_large_batch_with_dropout_on(towers):
    loss = GapClosingLoss()
    reference = gradients(towers, loss, all_at_once)
    assert Alive.peak == 10
    found = gradients(towers, loss, cached_embeddings)
    assert Alive.peak <= 2  # one micro-batch of two modalities
    for ours, expected in zip(found, reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_the_control_without_the_random_state_is_wrong(towers, monkeypatch):
    loss = GapClosingLoss()
    reference = gradients(towers, loss, all_at_once)
    monkeypatch.setattr(cached, "checkpoint", partial(cached.checkpoint, preserve_rng_state=False))
    found = gradients(towers, loss, cached_embeddings)
    assert max((ours - expected).abs().max() for ours, expected in zip(found, reference, strict=True)) > 1e-3


def test_the_control_of_plain_accumulation_is_another_gradient(towers):
    towers.eval()
    loss = GapClosingLoss()
    reference = gradients(towers, loss, cached_embeddings)

    def one_micro_batch(encode, micro_batches):
        return encode(micro_batches[0])

    found = gradients(towers, loss, one_micro_batch)
    assert max((ours - expected).abs().max() for ours, expected in zip(found, reference, strict=True)) > 1e-2


def test_without_gradients_and_under_autocast(towers):
    loss = GapClosingLoss()
    with torch.no_grad():
        rows = cached_embeddings(partial(encode, towers), split_batch({"image": {"x": torch.randn(5, 10)}}, 2))
    assert rows["image"].shape == (5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reference = gradients(towers, loss, all_at_once)
        found = gradients(towers, loss, cached_embeddings)
    for ours, expected in zip(found, reference, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-2)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        split_batch({"image": torch.zeros(2), "text": torch.zeros(3)}, 2)
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        split_batch({"image": torch.zeros(2)}, 0)
    with pytest.raises(ValueError, match="at least one micro-batch"):
        cached_embeddings(dict, [])
