"""SigLIP's loss: values worked by hand, a loop over pairs as the reference, tiles against the plain formula."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from gapless.losses.base import METHODS, parameter_rules
from gapless.losses.engine.sigmoid_tiles import sigmoid_share, softplus_sums
from gapless.losses.sigmoid import SigmoidLoss, SigmoidSettings, sigmoid_loss

SIZE, DIM = 37, 5


def unit(seed, rows=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, DIM, dtype=torch.float64, generator=generator), dim=1)


def by_hand(a, b, scale, bias, numbers):
    """The sum over all pairs, one at a time, in plain Python."""
    total = 0.0
    for i, row in enumerate(a.tolist()):
        for j, column in enumerate(b.tolist()):
            logit = scale * sum(x * y for x, y in zip(row, column, strict=True)) + bias
            total += math.log1p(math.exp(-logit if numbers[i] == numbers[j] else logit))
    return total / len(a)


@pytest.mark.parametrize("positives", [None, torch.arange(SIZE) % 7])
def test_it_is_the_sum_over_pairs(positives):
    a, b = unit(0), unit(1)
    numbers = list(range(SIZE)) if positives is None else positives.tolist()
    assert sigmoid_loss(a, b, 9.0, -4.0, positives).item() == pytest.approx(
        by_hand(a, b, 9.0, -4.0, numbers), rel=1e-12
    )


def test_orthogonal_modalities_of_eight_rows_cost_ten():
    """Every logit is the bias: log(1 + e^10) for the match and 7 log(1 + e^-10) for the others."""
    z = torch.eye(8)[:1].expand(8, 8)
    w = torch.eye(8)[1:2].expand(8, 8)
    expected = math.log1p(math.exp(10)) + 7 * math.log1p(math.exp(-10))
    loss = METHODS["siglip"].build(SigmoidSettings(), "text")
    assert loss({"image": z, "text": w}).total.item() == pytest.approx(expected, abs=1e-5)
    assert round(expected, 4) == 10.0004


def test_separated_pairs_cost_nothing_while_the_gap_stays_open():
    """Positives above a threshold and negatives below it: zero loss at a high factor, centroids 0.6 apart or more."""
    angle = math.radians(40)
    circle = torch.eye(4, dtype=torch.float64) * math.sin(angle)
    z = torch.cat([circle, torch.full((4, 1), math.cos(angle), dtype=torch.float64)], dim=1)
    w = torch.cat([circle, torch.full((4, 1), -math.cos(angle), dtype=torch.float64)], dim=1)
    cosine = (z @ w.T).diagonal().mean().item()  # sin^2 - cos^2 < 0, and all negatives are -cos^2
    middle = cosine - math.sin(angle) ** 2 / 2
    assert sigmoid_loss(z, w, 500.0, -500.0 * middle).item() < 1e-9
    assert (z.mean(0) - w.mean(0)).norm().item() > 1.5


def test_rotations_and_permutations_change_nothing_and_swapping_modalities_neither():
    a, b = unit(0), unit(1)
    q, _ = torch.linalg.qr(torch.randn(DIM, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(4)))
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(5))
    value = sigmoid_loss(a, b, 9.0, -4.0)
    for one, other in ((a @ q, b @ q), (a[order], b[order]), (b, a)):
        assert sigmoid_loss(one, other, 9.0, -4.0).item() == pytest.approx(value.item(), rel=1e-12)
    assert abs(sigmoid_loss(a, b[order], 9.0, -4.0) - value) > 0.1  # the control: other pairs


@pytest.mark.parametrize("tile", [8, 16, 64])
@pytest.mark.parametrize("positives", [None, torch.arange(SIZE) % 7, torch.arange(SIZE).flip(0) // 2 + 100])
@pytest.mark.parametrize("scale", [9.0, 100.0])
def test_tiles_are_exact_forward_and_backward(tile, positives, scale):
    inputs = [unit(0), unit(1), torch.tensor(scale, dtype=torch.float64), torch.tensor(-4.0, dtype=torch.float64)]
    inputs = [x.requires_grad_() for x in inputs]
    plain = sigmoid_loss(*inputs, positives)
    tiled = sigmoid_share(*inputs, positives, slice(0, SIZE), tile_size=tile)
    assert tiled.item() == pytest.approx(plain.item(), abs=1e-9)
    for ours, expected in zip(torch.autograd.grad(tiled, inputs), torch.autograd.grad(plain, inputs), strict=True):
        assert (ours - expected).abs().max() < 1e-9


def test_large_batches_take_the_tiles_and_hold_no_matrix(monkeypatch):
    """The largest tensor that the tiles make is a tile, whatever the batch; derivatives of derivatives are plain."""
    loss = SigmoidLoss(SigmoidSettings(), "text").double()
    a, b = unit(0, 300).requires_grad_(), unit(1, 300)
    small = loss({"image": a[:256], "text": b[:256]}).total
    assert small.grad_fn is not None
    seen = []

    def watched(*arguments):
        seen.append(arguments[3])
        return softplus_sums(*arguments)

    monkeypatch.setattr("gapless.losses.engine.sigmoid_tiles.softplus_sums", watched)
    large = loss({"image": a, "text": b}).total
    assert len(seen) == 1
    assert large.item() == pytest.approx(sigmoid_loss(a, b, 10.0, -10.0).item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(large, a, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), a)
    (expected,) = torch.autograd.grad(sigmoid_loss(a, b, loss.logit_scale.exp(), loss.logit_bias), a, create_graph=True)
    assert (second - torch.autograd.grad(expected.square().sum(), a)[0]).abs().max() < 1e-9


def test_a_mean_over_the_pairs_with_the_anchor_by_rows_and_weight():
    loss = SigmoidLoss(SigmoidSettings(modality_weights={"ecg": 0.5}), "text").double()
    rows = {"image": unit(0), "ecg": unit(1), "text": unit(2)}
    present = {"ecg": torch.arange(SIZE) < 10}
    terms = loss(rows, present=present)
    of_image = sigmoid_loss(rows["image"], rows["text"], loss.logit_scale.exp(), -10.0)
    of_ecg = sigmoid_loss(rows["ecg"][:10], rows["text"][:10], loss.logit_scale.exp(), -10.0)
    assert terms.total.item() == pytest.approx(((SIZE * of_image + 5 * of_ecg) / (SIZE + 5)).item(), rel=1e-12)
    assert (terms.skipped_pairs, terms.compared_rows) == (0, SIZE + 10)
    rows["ecg"] = torch.where(present["ecg"][:, None], rows["ecg"], torch.nan)
    assert loss(rows, present=present).total.item() == terms.total.item()


def test_scale_and_bias_start_as_in_the_paper_take_no_decay_and_stay_in_fp32():
    loss = SigmoidLoss(SigmoidSettings(), "text")
    assert loss.logit_scale.item() == pytest.approx(math.log(10))
    assert loss.logit_bias.item() == -10.0
    assert {id(p) for p in parameter_rules(loss)} == {id(loss.logit_scale), id(loss.logit_bias)}
    assert not any(rule.weight_decay for rule in parameter_rules(loss).values())
    with torch.no_grad():
        loss.logit_scale.fill_(9.0)
    loss.after_step()
    assert loss.bfloat16().logit_scale.exp().item() == pytest.approx(100)
    assert loss.logit_bias.dtype == torch.float32
    with pytest.raises(ValueError, match=r"the temperature must be at least 0\.01"):
        SigmoidLoss(replace(SigmoidSettings(), temperature=0.0), "text")
    with pytest.raises(ValueError, match="the bias must be finite"):
        SigmoidLoss(replace(SigmoidSettings(), bias=math.nan), "text")


def test_a_batch_of_nothing_to_compare_has_zero_gradients_for_every_parameter():
    loss = SigmoidLoss(SigmoidSettings(), "text")
    rows = {"image": unit(0, 3).float().requires_grad_(), "text": unit(1, 3).float()}
    terms = loss(rows, present={"image": torch.tensor([True, False, False])})
    terms.total.backward()
    assert terms.total.item() == 0.0
    assert terms.skipped_pairs == 1
    assert rows["image"].grad.abs().sum() == loss.logit_bias.grad == loss.logit_scale.grad == 0
