"""CLIP's loss with other temperatures and with swapped modalities: values by hand, draws that repeat, controls."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from gapless.core.errors import UsageError
from gapless.losses.base import METHODS, logit_scale_of, parameter_rules
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.temperature import TemperatureLoss, TemperatureSettings, swapped

NAMES = tuple(name for name, method in METHODS.items() if type(method.settings) is TemperatureSettings)


def unit(seed, rows=40, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, dtype=torch.float64, generator=generator), dim=1)


def batch(rows=40):
    return {"image": unit(0, rows), "text": unit(1, rows)}


def built(name, **changes):
    return METHODS[name].build(METHODS[name].changed(changes), "text")


def test_the_five_methods_are_clip_at_their_first_temperature():
    assert len(NAMES) == 5
    for name in NAMES:
        loss = built(name).double().eval()
        start = 100.0 if name == "clip-temperature-schedule" else 1 / 0.07
        assert logit_scale_of(loss) == pytest.approx(start, rel=1e-6)
        expected = symmetric_info_nce(*batch().values(), start).item()
        assert loss(batch()).total.item() == pytest.approx(expected, rel=1e-6)


def test_large_batches_take_the_tiles():
    loss = built("clip-temperature-softplus").double()
    rows = batch(300)
    assert loss(rows).total.item() == pytest.approx(symmetric_info_nce(*rows.values(), 1 / 0.07).item(), rel=1e-6)


def test_the_schedule_rises_in_a_straight_line_and_is_not_learned():
    loss = built("clip-temperature-schedule")
    for progress, temperature in ((0.0, 0.01), (0.25, 0.02), (0.5, 0.03), (1.0, 0.05)):
        loss.set_progress(progress)
        assert 1 / logit_scale_of(loss) == pytest.approx(temperature, rel=1e-6)
    assert not list(loss.parameters())
    assert not parameter_rules(loss)


@pytest.mark.parametrize(
    ("settings", "derivative"),
    [
        ({}, 20.0),  # d exp(nu) / d nu
        ({"divisor": 4.0}, 5.0),  # exp(nu / 4): a quarter
        ({"parameter": "softplus"}, 1 - math.exp(-20.0)),  # the sigmoid of nu
    ],
)
def test_the_parameter_of_the_temperature_by_hand(settings, derivative):
    loss = TemperatureLoss(TemperatureSettings(temperature=0.05, **settings), "text").double()
    factor = loss.logit_scale.exp()
    assert factor.item() == pytest.approx(20.0, rel=1e-6)
    factor.backward()
    assert loss.nu.grad.item() == pytest.approx(derivative, rel=1e-6)
    with torch.no_grad():
        loss.nu.fill_(1000.0)
    loss.after_step()
    assert logit_scale_of(loss) == pytest.approx(100.0, rel=1e-6)


def test_the_slow_temperature_has_a_tenth_of_the_rate_and_no_decay():
    (rule,) = parameter_rules(built("clip-temperature-slow")).values()
    assert (rule.weight_decay, rule.learning_rate_factor) == (False, 0.1)
    (rule,) = parameter_rules(built("clip-temperature-softplus")).values()
    assert (rule.weight_decay, rule.learning_rate_factor) == (False, 1.0)


def test_a_hard_swap_by_hand():
    a, b = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.6, 0.8]])
    one, other = swapped(a, b, torch.tensor([[1.0, 0.0, 1.0]]))
    assert torch.allclose(one, normalize(torch.tensor([[1.0, 0.6, 0.0]])))
    assert torch.allclose(other, torch.tensor([[0.0, 0.0, 1.0]]))
    one, other = swapped(a, b, torch.full((1, 3), 0.5))
    assert torch.allclose(one, other)
    assert torch.equal(torch.stack(swapped(a, b, torch.ones(1, 3))), torch.stack([a, b]))
    assert torch.equal(torch.stack(swapped(a, b, torch.zeros(1, 3))), torch.stack([b, a]))


@pytest.mark.parametrize("name", ["clip-swap-hard", "clip-swap-soft"])
def test_swaps_repeat_by_seed_and_step_only_in_training(name):
    loss = built(name, swap_share=1.0).double()
    rows = batch()
    unchanged = symmetric_info_nce(*rows.values(), loss.logit_scale.exp()).item()

    def at(seed, step):
        loss.begin_step(seed, step)
        return [loss(rows).total.item() for _ in range(2)]  # two micro-batches of one step

    first = at(0, 7)
    assert at(0, 7) == first
    assert first[0] != first[1]
    assert len({*first, *at(0, 8), *at(1, 7), unchanged}) == 7
    loss.eval()
    assert loss(rows).total.item() == unchanged


@pytest.mark.parametrize("name", ["clip-swap-hard", "clip-swap-soft"])
def test_pairs_that_coincide_are_left_as_they_are(name):
    loss = built(name, swap_share=1.0).double()
    rows = {"image": unit(0), "text": unit(0)}
    expected = symmetric_info_nce(*rows.values(), loss.logit_scale.exp()).item()
    assert loss(rows).total.item() == pytest.approx(expected, rel=1e-12)


def test_the_share_of_steps_that_swap_is_the_setting():
    loss = built("clip-swap-soft", swap_share=0.3).double()
    rows = batch(4)
    unchanged = symmetric_info_nce(*rows.values(), loss.logit_scale.exp()).item()
    num_swapped = 0
    for step in range(400):
        loss.begin_step(0, step)
        num_swapped += loss(rows).total.item() != unchanged
    assert 120 - 40 < num_swapped < 120 + 40  # more than four standard deviations


def test_gradients_reach_both_modalities_through_a_swap():
    loss = built("clip-swap-hard", swap_share=1.0).double()
    rows = {name: one.requires_grad_() for name, one in batch(6).items()}
    loss.begin_step(0, 0)
    loss(rows).total.backward()
    for one in rows.values():
        ours = one.grad.clone()
        with torch.no_grad():
            nudge = torch.zeros_like(one)
            nudge[2, 1] = 1e-6
            values = []
            for sign in (1, -1):
                loss.begin_step(0, 0)
                values.append(loss({n: r + sign * nudge if r is one else r for n, r in rows.items()}).total.item())
        assert ours[2, 1].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


def test_bad_settings_are_named():
    for changes, message in (
        ({"temperature": 0.0}, "temperature must be at least 0.01, got 0.0"),
        ({"temperature": [[0.0, 0.001]]}, r"temperature must be at least 0.01, got \[\[0.0, 0.001\]\]"),
        ({"temperature": [[0.5, 0.1], [0.2, 0.1]]}, "temperature: a schedule needs points of increasing progress"),
        ({"parameter": "log"}, "unknown parameter 'log'; known: exp, softplus"),
        ({"swap": "both"}, "unknown swap 'both'; known: hard, none, soft"),
        ({"swap_share": 1.5}, r"swap_share must be in \[0, 1\], got 1.5"),
        ({"divisor": 0.0}, "divisor must be at least 1, got 0.0"),
    ):
        with pytest.raises(UsageError, match=message):
            TemperatureSettings(**changes)
