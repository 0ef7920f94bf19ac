"""Soft targets from labels: a loop over rows as the reference, both limits of the targets' temperature, exact tiles."""

import math

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from gapless.core.errors import UsageError
from gapless.inference.label_rows import label_matrix
from gapless.losses.base import METHODS
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.soft_target_tiles import target_excess
from gapless.losses.soft_targets import SoftTargetLoss, SoftTargetSettings, soft_target_loss, soft_targets

SIZE, DIM = 37, 5
CLASSES = torch.arange(SIZE) % 6
LABELS = one_hot(CLASSES, 6).double()
SEVERAL = LABELS + LABELS.roll(1, dims=1) * (torch.arange(SIZE) % 2)[:, None]
SEVERAL[4] = SEVERAL[20] = 0.0  # two rows without a label


def unit(seed, rows=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, DIM, dtype=torch.float64, generator=generator), dim=1)


def by_hand(a, b, scale, labels, temperature):
    """The cross entropies of every row, one at a time, in plain Python."""
    total = 0.0
    for one, other in ((a.tolist(), b.tolist()), (b.tolist(), a.tolist())):
        for i, row in enumerate(one):
            logits = [scale * sum(x * y for x, y in zip(row, key, strict=True)) for key in other]
            alike = [sum(x * y for x, y in zip(labels[i], own, strict=True)) / temperature for own in labels]
            weights = [math.exp(x) for x in alike]
            if not any(labels[i]):
                weights = [float(i == j) for j in range(len(a))]
            norm = math.log(sum(math.exp(x) for x in logits))
            total -= sum(w * (x - norm) for w, x in zip(weights, logits, strict=True)) / sum(weights)
    return total / (2 * len(a))


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("labels", [LABELS, SEVERAL])
def test_it_is_the_cross_entropy_of_each_row(labels, temperature):
    expected = by_hand(unit(0), unit(1), 7.0, labels.tolist(), temperature)
    assert soft_target_loss(unit(0), unit(1), 7.0, labels, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_one_label_for_all_is_a_uniform_target_and_labels_of_ones_own_are_info_nce():
    uniform = soft_targets(torch.ones(5, 1), 0.1)
    assert torch.allclose(uniform, torch.full((5, 5), 0.2))
    a, b = unit(0), unit(1)
    own = torch.eye(SIZE, dtype=torch.float64)
    expected = symmetric_info_nce(a, b, 7.0).item()
    assert soft_target_loss(a, b, 7.0, own, 0.01).item() == pytest.approx(expected, rel=1e-12)
    assert soft_target_loss(a, b, 7.0, 0 * own, 1.0).item() == pytest.approx(expected, rel=1e-12)  # no label at all
    assert soft_target_loss(a, b, 7.0, own, 1.0).item() > expected + 0.1  # the control: the paper's targets are flat


def test_without_a_temperature_of_the_targets_an_alike_row_weighs_e_times_another():
    targets = soft_targets(LABELS, 1.0)
    assert targets[0, 6].item() / targets[0, 1].item() == pytest.approx(math.e)
    assert targets[0, 0].item() == targets[0, 6].item()  # the own pair is no more than an alike one
    num_alike = int((CLASSES == 0).sum())
    assert targets[0, CLASSES == 0].sum().item() == pytest.approx(
        num_alike * math.e / (num_alike * math.e + SIZE - num_alike)
    )


def test_permuting_labels_rows_and_modalities_changes_nothing():
    a, b = unit(0), unit(1)
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(2))
    value = soft_target_loss(a, b, 7.0, SEVERAL, 0.3).item()
    assert soft_target_loss(a[order], b[order], 7.0, SEVERAL[order], 0.3).item() == pytest.approx(value, rel=1e-12)
    assert soft_target_loss(b, a, 7.0, SEVERAL.flip(1), 0.3).item() == pytest.approx(value, rel=1e-12)
    assert abs(soft_target_loss(a, b, 7.0, SEVERAL[order], 0.3).item() - value) > 1e-3  # the control: other labels


@pytest.mark.parametrize("tile", [8, 64])
@pytest.mark.parametrize("labels", [LABELS, SEVERAL])
@pytest.mark.parametrize("temperature", [1.0, 0.02])
def test_tiles_are_exact_forward_and_backward(tile, labels, temperature):
    inputs = [unit(0), unit(1), torch.tensor(7.0, dtype=torch.float64)]
    a, b, scale = (x.requires_grad_() for x in inputs)
    plain = soft_target_loss(a, b, scale, labels, temperature)
    excess = target_excess(a, b, labels / temperature, labels, slice(0, SIZE), tile_size=tile)
    tiled = symmetric_info_nce(a, b, scale) + scale * excess
    assert tiled.item() == pytest.approx(plain.item(), abs=1e-9)
    for ours, expected in zip(torch.autograd.grad(tiled, inputs), torch.autograd.grad(plain, inputs), strict=True):
        assert (ours - expected).abs().max() < 1e-9


def test_large_batches_take_the_tiles_with_the_same_derivatives():
    loss = SoftTargetLoss(SoftTargetSettings(), "text").double()
    a, b = unit(0, 300).requires_grad_(), unit(1, 300)
    labels = one_hot(torch.arange(300) % 7).double()
    large = loss({"image": a, "text": b}, labels=labels).total
    plain = soft_target_loss(a, b, loss.logit_scale.exp(), labels, 0.1)
    assert large.item() == pytest.approx(plain.item(), abs=1e-9)
    seconds = []
    for value in (large, plain):
        (gradient,) = torch.autograd.grad(value, a, create_graph=True)
        seconds.append(torch.autograd.grad(gradient.square().sum(), a)[0])
    assert (seconds[0] - seconds[1]).abs().max() < 1e-9


def test_rows_that_lack_a_modality_are_left_out_with_their_labels():
    loss = SoftTargetLoss(SoftTargetSettings(), "text").double()
    rows, present = {"image": unit(0), "text": unit(1)}, {"image": torch.arange(SIZE) % 3 > 0}
    kept = present["image"]
    expected = soft_target_loss(rows["image"][kept], rows["text"][kept], loss.logit_scale.exp(), LABELS[kept], 0.1)
    rows["image"] = torch.where(kept[:, None], rows["image"], torch.nan)
    terms = loss(rows, present=present, labels=LABELS)
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_labels_become_columns_in_the_order_of_their_names():
    matrix = label_matrix([["b", "a"], "a", None, [], 3, 3.0])
    assert matrix.tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_what_is_missing_or_wrong_is_named():
    loss = METHODS["soft-targets"].build(SoftTargetSettings(), "text")
    rows = {"image": unit(0), "text": unit(1)}
    with pytest.raises(UsageError, match="compares the labels of rows, and was given none"):
        loss(rows)
    for labels in (LABELS[1:], CLASSES, LABELS.long()):
        with pytest.raises(ValueError, match=r"labels: expected a \[37, label\] matrix of floating-point numbers"):
            loss(rows, labels=labels)
    with pytest.raises(UsageError, match="target_temperature must be above 0, got 0"):
        SoftTargetSettings(target_temperature=0.0)
    with pytest.raises(UsageError, match=r"temperature must be at least 0\.01"):
        SoftTargetSettings(temperature=0.0)
