"""The tiled engine against the plain functions: same value, same gradients, nothing quadratic."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gapless.core.geometry import log_mean_gaussian_kernel, pair_centroids
from gapless.losses import gap_closing
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine import tile_loops, tiled
from gapless.losses.engine.tiled import tiled_log_mean_gaussian_kernel, tiled_symmetric_info_nce
from gapless.losses.gap_closing import GapClosingLoss


def unit_rows(num_rows, dim, seed, dtype=torch.float64):
    rows = torch.randn(num_rows, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (rows / rows.norm(dim=1, keepdim=True)).requires_grad_()


def value_and_gradients(function, *inputs):
    value = function(*inputs)
    return value, *torch.autograd.grad(value, [x for x in inputs if x.requires_grad])


def assert_same(ours, reference, atol=1e-10):
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


@st.composite
def batches(draw):
    """Any size against any tile, any scale, no positives, few or many, a cone (as with a modality gap) or a sphere."""
    num_rows, dim, tile = draw(st.integers(2, 40)), draw(st.integers(2, 9)), draw(st.integers(1, 17))
    seed, scale = draw(st.integers(0, 10_000)), draw(st.sampled_from([0.5, 14.3, 100.0, 650.0]))
    positives = None
    if draw(st.booleans()):
        generator = torch.Generator().manual_seed(seed)
        positives = torch.randint(-3, draw(st.integers(-2, 40)), (num_rows,), generator=generator)
        positives[draw(st.integers(0, num_rows - 1))] = 99
        if positives.unique().numel() == 1:
            positives[0] = 7 if positives[0] == 99 else 99
            positives[1] = -7
    return num_rows, dim, tile, seed, scale, positives, draw(st.booleans())


@settings(max_examples=200, deadline=None)
@given(batches())
def test_contrastive_is_the_plain_function(example):
    num_rows, dim, tile, seed, scale, positives, is_cone = example
    a, b = unit_rows(num_rows, dim, seed), unit_rows(num_rows, dim, seed + 1)
    if is_cone:  # every logit near -scale: what a fixed shift by the bound would underflow
        with torch.no_grad():
            b.copy_(-a[:1] + 0.05 * b)
            b.div_(b.norm(dim=1, keepdim=True))
    scale = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    ours = value_and_gradients(lambda *x: tiled_symmetric_info_nce(*x, positives, tile), a, b, scale)
    assert_same(ours, value_and_gradients(lambda *x: symmetric_info_nce(*x, positives), a, b, scale))


@settings(max_examples=150, deadline=None)
@given(batches(), st.integers(2, 5), st.booleans())
def test_uniformity_is_the_plain_function(example, num_modalities, normalise):
    num_rows, dim, tile, seed, _, positives, _ = example
    modalities = [unit_rows(num_rows, dim, seed + i) for i in range(num_modalities)]
    ours = value_and_gradients(
        lambda *x: tiled_log_mean_gaussian_kernel(pair_centroids(x, normalise), positives, tile), *modalities
    )
    plain = value_and_gradients(
        lambda *x: log_mean_gaussian_kernel(pair_centroids(x, normalise), positives), *modalities
    )
    assert_same(ours, plain)


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(2, 5))
def test_the_whole_loss_is_the_same_on_either_engine(example, num_modalities):
    num_rows, dim, tile, seed, _, positives, _ = example
    names = ("text", "image", "wave", "report", "genome")[:num_modalities]
    embeddings = {name: unit_rows(num_rows, dim, seed + i) for i, name in enumerate(names)}
    loss = GapClosingLoss(temperature=0.05, alignment_weight=0.7, uniformity_weight=1.3).double()
    gradients = []
    for largest_plain_batch in (1000, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gap_closing, "PLAIN_ON_CPU", largest_plain_batch)
            patch.setattr(tiled, "CPU_TILE", tile)
            terms = loss(embeddings, positives=positives)
            inputs = [*embeddings.values(), loss.logit_scale]
            gradients.append((*terms, *torch.autograd.grad(terms.total, inputs)))
    assert_same(*gradients)


@pytest.mark.parametrize("positives", [None, torch.tensor([5, 1, 5, 2, 1, 5, 0])])
@pytest.mark.parametrize("scale", [3.0, 700.0])
def test_gradcheck(positives, scale):
    a, b = unit_rows(7, 3, 0), unit_rows(7, 3, 1)
    scale = torch.tensor(scale / 100, dtype=torch.float64, requires_grad=True)  # gradcheck's step is absolute
    assert torch.autograd.gradcheck(
        lambda a, b, s: tiled_symmetric_info_nce(a, b, 100 * s, positives, 3), (a, b, scale)
    )
    assert torch.autograd.gradcheck(lambda x: tiled_log_mean_gaussian_kernel(x, positives, 3), (a,))


@pytest.mark.parametrize("place", ["sphere", "cone", "opposite"])
def test_fp32_stays_exact_at_scale_100(place):
    a, b = unit_rows(300, 64, 0), unit_rows(300, 64, 1)
    with torch.no_grad():
        if place == "opposite":
            b.copy_(-a)
        if place == "cone":
            b.copy_(torch.nn.functional.normalize(-a[:1] + 0.02 * b))
    scale = torch.tensor(100.0, dtype=torch.float64, requires_grad=True)
    reference = value_and_gradients(symmetric_info_nce, a, b, scale)
    narrow = [x.detach().float().requires_grad_() for x in (a, b, scale)]
    ours = value_and_gradients(lambda *x: tiled_symmetric_info_nce(*x, None, 64), *narrow)
    for one, other in zip(ours, reference, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-5, atol=2e-5)


def test_exponentials_are_shifted_where_the_scale_could_overflow(monkeypatch):
    """With every logit at 100, exp(logit) is infinite in fp32: the loss is finite only because it is shifted."""
    a = unit_rows(1, 64, 0).detach().float().expand(50, 64).contiguous()
    assert float(tiled_symmetric_info_nce(a, a, torch.tensor(100.0), None, 16)) == pytest.approx(math.log(50), abs=1e-4)
    monkeypatch.setattr(tile_loops, "EXP_NEEDS_NO_SHIFT", {torch.float32: 640.0})
    assert not math.isfinite(float(tiled_symmetric_info_nce(a, a, torch.tensor(100.0), None, 16)))


def test_tiles_that_are_kept_and_tiles_that_are_recomputed_agree(monkeypatch):
    a, b = unit_rows(50, 8, 0), unit_rows(50, 8, 1)
    scale = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    reference = value_and_gradients(symmetric_info_nce, a, b, scale)
    for kept in (0, 3 * 64, 10**6):
        monkeypatch.setattr(tiled, "KEPT_ELEMENTS", kept)
        for limit in ({torch.float64: 0.0}, {torch.float64: 600.0}):
            monkeypatch.setattr(tile_loops, "EXP_NEEDS_NO_SHIFT", limit)
            assert_same(value_and_gradients(lambda *x: tiled_symmetric_info_nce(*x, None, 8), a, b, scale), reference)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_computed_in_fp32(dtype):
    halves = [unit_rows(70, 16, seed).detach().to(dtype).requires_grad_() for seed in range(2)]
    fp32 = [x.detach().float().requires_grad_() for x in halves]
    for function in (
        lambda a, b: tiled_symmetric_info_nce(a, b, 14.0, None, 16),
        lambda a, b: tiled_log_mean_gaussian_kernel(pair_centroids([a.float(), b.float()]), None, 16),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = value_and_gradients(function, *halves)
        assert ours[0].dtype == torch.float32
        value, *gradients = value_and_gradients(function, *fp32)
        assert_same(ours, (value, *(gradient.to(dtype) for gradient in gradients)), atol=1e-6)


COMPILED = """
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from gapless.losses import gap_closing
from gapless.losses.engine import tile_loops, tiled
from gapless.losses.schedules import Schedule

gap_closing.PLAIN_ON_CPU, tiled.CPU_TILE = 0, 16
rows = torch.nn.functional.normalize(torch.randn(2, 40, 8, dtype=torch.float64), dim=-1).requires_grad_()
for positives in (None, torch.arange(40) // 2):
    loss = gap_closing.GapClosingLoss(alignment_weight=Schedule.linear(1, 2)).double()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for progress in (0, 0.1, 0.2, 0.3, 0.4):
        loss.set_progress(progress)
        results = []
        for run in (loss, compiled):
            terms = run({"image": rows[0], "text": rows[1]}, positives=positives)
            results.append((*terms, *torch.autograd.grad(terms.total, (rows, loss.logit_scale))))
        torch.testing.assert_close(*results, rtol=0, atol=1e-10)
    assert counter.frame_count <= 2, counter.frame_count
"""


@pytest.mark.ci
def test_torch_compile_keeps_it_whole():
    """In a process of its own: the shape checks of the test run cannot be compiled."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing(use_reentrant):
    a, b = unit_rows(20, 6, 0), unit_rows(20, 6, 1)

    def function(a, b):
        return tiled_symmetric_info_nce(a, b, 14.0, None, 8) + tiled_log_mean_gaussian_kernel(a, None, 8)

    def checkpointed(a, b):
        return torch.utils.checkpoint.checkpoint(function, a, b, use_reentrant=use_reentrant)

    value = checkpointed(a, b)
    value.backward()
    assert_same((value, a.grad, b.grad), value_and_gradients(function, a, b))


def test_backward_twice():
    a, b = unit_rows(9, 4, 0), unit_rows(9, 4, 1)
    value = tiled_symmetric_info_nce(a, b, 5.0, None, 4)
    first = torch.autograd.grad(value, a, retain_graph=True)[0]
    assert_same([first], torch.autograd.grad(3 * value, a, retain_graph=True)[0][None] / 3)


def test_without_a_gradient_only_the_value_is_computed(monkeypatch):
    monkeypatch.setattr(tiled, "softmax_products", None)
    with torch.no_grad():
        value = tiled_symmetric_info_nce(unit_rows(9, 4, 0), unit_rows(9, 4, 1), 5.0, None, 4)
    assert not value.requires_grad
