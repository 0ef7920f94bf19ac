"""Where no interval exists its bounds are None, and numbers that an argument cannot be are refused."""

import numpy as np
import pytest

from gapless.core.files import strict_json
from gapless.metrics.measure import measure, measure_difference


def pair(n):
    random = np.random.default_rng(2)
    image = random.normal(size=(n, 5))
    return {"image": image, "text": image + random.normal(size=(n, 5))}


@pytest.mark.parametrize(
    ("n", "groups"),
    [(2, None), (3, None), (4, ["a", "a", "a", "b"]), (20, ["a"] * 19 + ["b"]), (20, ["a"] * 20)],
)
def test_bounds_are_numbers_in_order_or_none(n, groups):
    found = measure(pair(n), groups=groups, num_bootstrap=100)
    bounds = [(value["low"], value["high"]) for value in found.values() if isinstance(value, dict) and "low" in value]
    assert len(bounds) > 20
    assert all((low is None and high is None) or low <= high for low, high in bounds)
    assert found["gap/margin"]["low"] is None  # a draw of one row alone has no pair that is false
    assert "NaN" not in strict_json(found)


def test_enough_groups_have_every_interval():
    found = measure(pair(40), num_bootstrap=100)
    assert all(value["low"] <= value["high"] for value in found.values() if isinstance(value, dict) and "low" in value)


def test_one_group_has_no_interval_and_no_probe_but_all_other_figures():
    found = measure(pair(20), groups=["x"] * 20, num_bootstrap=50)
    assert np.isnan(found["gap/separability_auc"])
    assert found["gap/true_pair_cosine"]["low"] is None
    assert np.isfinite(found["gap/true_pair_cosine"]["value"])


@pytest.mark.parametrize("wrong", [{"num_bootstrap": -5}, {"seed": -1}, {"block_size": 0}])
def test_numbers_are_refused_by_their_name(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a whole number of at least"):
        measure(pair(8), **wrong)
    with pytest.raises(ValueError, match="num_bootstrap is a whole number of at least 1"):
        measure_difference([pair(8)], [pair(8)], num_bootstrap=0)
