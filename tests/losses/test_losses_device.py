"""The loss on an accelerator: values and gradients of the CPU, memory that stays linear, no waiting for the device."""

import pytest
import torch

from gapless.losses.gap_closing import PLAIN_ON_ACCELERATOR, GapClosingLoss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator"),
]
SMALL, TILED = 300, PLAIN_ON_ACCELERATOR + 1000


def batch(num_pairs, dim=64, num_modalities=2, dtype=torch.float64):
    """Modalities with a gap between them, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(num_pairs, dim, generator=generator, dtype=torch.float64)
    parts = {}
    for number, name in enumerate(("image", "text", "ecg")[:num_modalities]):
        rows = shared + torch.randn(num_pairs, dim, generator=generator, dtype=torch.float64) + 0.5 * (-1) ** number
        parts[name] = (rows / rows.norm(dim=1, keepdim=True)).to(dtype)
    return parts


def value_and_gradients(parts, positives, device, dtype, present=None):
    loss = GapClosingLoss(alignment_weight=2.0, uniformity_weight=0.5).to(device)
    rows = {name: part.to(device, dtype).requires_grad_() for name, part in parts.items()}
    masks = None if present is None else {name: mask.to(device) for name, mask in present.items()}
    terms = loss(rows, present=masks, positives=None if positives is None else positives.to(device))
    terms.total.backward()
    gradients = [part.grad.cpu().double() for part in rows.values()]
    return [float(term) for term in terms], gradients, float(loss.logit_scale.grad)


@pytest.mark.parametrize("num_pairs", [SMALL, TILED], ids=["plain", "tiled"])
@pytest.mark.parametrize("num_modalities", [2, 3])
@pytest.mark.parametrize("with_positives", [False, True])
def test_the_device_agrees_with_the_cpu(num_pairs, num_modalities, with_positives):
    parts = batch(num_pairs, num_modalities=num_modalities)
    positives = torch.arange(num_pairs) // 2 if with_positives else None
    terms, gradients, scale = value_and_gradients(parts, positives, "cuda", torch.float32)
    expected_terms, expected_gradients, expected_scale = value_and_gradients(parts, positives, "cpu", torch.float64)
    assert terms == pytest.approx(expected_terms, rel=2e-5, abs=1e-6)
    assert scale == pytest.approx(expected_scale, rel=2e-4, abs=1e-5)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        assert float((found - expected).norm() / expected.norm()) < 2e-4
    assert float((gradients[0] - expected_gradients[1]).norm() / expected_gradients[1].norm()) > 0.1  # the control


@pytest.mark.parametrize("num_pairs", [SMALL, TILED], ids=["plain", "tiled"])
@pytest.mark.parametrize("with_positives", [False, True])
def test_the_device_agrees_with_the_cpu_where_rows_lack_modalities(num_pairs, with_positives):
    generator = torch.Generator().manual_seed(1)
    parts = batch(num_pairs, num_modalities=3)
    present = {
        name: torch.rand(num_pairs, generator=generator) < share
        for name, share in zip(parts, (0.8, 0.9, 0.3), strict=True)
    }
    for name, mask in present.items():
        parts[name][~mask] = torch.nan
    positives = torch.arange(num_pairs) // 2 if with_positives else None
    terms, gradients, scale = value_and_gradients(parts, positives, "cuda", torch.float32, present)
    expected_terms, expected_gradients, expected_scale = value_and_gradients(
        parts, positives, "cpu", torch.float64, present
    )
    assert terms == pytest.approx(expected_terms, rel=2e-5, abs=1e-6)
    assert scale == pytest.approx(expected_scale, rel=2e-4, abs=1e-5)
    for name, found, expected in zip(parts, gradients, expected_gradients, strict=True):
        assert float(found[~present[name]].abs().sum()) == 0  # NaN in absent rows reaches nothing
        assert float((found - expected).norm() / expected.norm()) < 2e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_give_finite_gradients_near_the_exact_ones(dtype):
    parts = batch(TILED)
    with torch.autocast("cuda", dtype=dtype):
        terms, gradients, _ = value_and_gradients(parts, None, "cuda", dtype)
    rounded = {name: part.to(dtype).double() for name, part in parts.items()}
    expected_terms, expected_gradients, _ = value_and_gradients(rounded, None, "cpu", torch.float64)
    assert terms == pytest.approx(expected_terms, rel=1e-3, abs=1e-4)
    for found, expected in zip(gradients, expected_gradients, strict=True):
        assert float((found - expected).norm() / expected.norm()) < 0.02


def test_memory_grows_with_the_batch_and_not_with_its_square():
    peaks = {}
    for num_pairs in (2 * TILED, 8 * TILED):
        loss = GapClosingLoss().cuda()
        rows = {name: part.cuda().requires_grad_() for name, part in batch(num_pairs, 512, dtype=torch.float32).items()}
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss(rows).total.backward()
        peaks[num_pairs] = torch.cuda.max_memory_allocated() - before
    small, large = peaks.values()
    assert large < 4.5 * small  # four times the pairs; a matrix of logits would take sixteen times
    assert large < (8 * TILED) ** 2 * 4  # the control: one such matrix


@pytest.mark.parametrize("num_pairs", [SMALL, TILED], ids=["plain", "tiled"])
def test_a_step_never_waits_for_the_device(num_pairs):
    loss = GapClosingLoss().cuda()
    rows = {name: part.cuda().requires_grad_() for name, part in batch(num_pairs, dtype=torch.float32).items()}
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(rows).total.backward()
        with pytest.raises(RuntimeError, match="synchroniz"):
            float(rows["image"].sum())  # the control: reading a value does wait
    finally:
        torch.cuda.set_sync_debug_mode("default")
