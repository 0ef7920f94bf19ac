"""Figures of drawn queries: those of all pairs where nearly all are drawn, and intervals that hold the exact values."""

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import unit_norm
from gapless.metrics.inputs import read_embeddings
from gapless.metrics.measure import measure
from gapless.metrics.sampled import drawn_sample, scan_sample
from gapless.metrics.score_moments import centred_scores
from gapless.metrics.uncertainty import GroupSums

EVERY_QUERY = {"gap/hubness"}


def pairs(count: int, dim: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Two noisy views of the same points, one of them shifted."""
    random = np.random.default_rng(seed)
    points = random.standard_normal((count, dim))
    image = points + 0.7 * random.standard_normal((count, dim)) + 0.4
    text = points + 0.7 * random.standard_normal((count, dim))
    return {"image": image.astype(np.float32), "text": text.astype(np.float32)}


@pytest.fixture(scope="module")
def rows():
    return pairs(1500)


@pytest.fixture(scope="module")
def exact(rows):
    return measure(rows, exact=True)


def test_nearly_every_pair_as_a_query_gives_the_exact_figures(rows, exact):
    drawn = measure(rows, queries=1499)
    assert drawn["sampled"] == {"queries": 1499, "seed": 0, "of": 1500}
    assert set(exact) - set(drawn) == EVERY_QUERY
    for key in set(exact) & set(drawn):
        assert drawn[key] == pytest.approx(exact[key], abs=3e-3, rel=3e-3), key


def test_the_intervals_of_drawn_queries_hold_the_exact_values(rows, exact):
    """A small version of benchmarks/sampling.py: each figure in most of 12 draws."""
    inside: dict[str, list[bool]] = {}
    for seed in range(12):
        drawn = measure(rows, queries=200, num_bootstrap=200, seed=seed, include=("gap", "retrieval", "mixed"))
        for key, value in drawn.items():
            if isinstance(value, dict) and value.get("low") is not None:
                inside.setdefault(key, []).append(value["low"] <= exact[key] <= value["high"])
    shares = {key: np.mean(held) for key, held in inside.items()}
    assert min(shares.values()) >= 0.6
    assert np.mean(list(shares.values())) >= 0.93


def test_an_interval_of_too_few_draws_would_miss(rows, exact):
    """The control: intervals shrunk to a third do not hold the exact values."""
    held = []
    for seed in range(6):
        drawn = measure(rows, queries=200, num_bootstrap=100, seed=seed, include=("retrieval",))
        for key in ("retrieval/image_to_text/R@10", "retrieval/image_to_text/MRR"):
            one = drawn[key]
            third = (one["high"] - one["low"]) / 6
            held.append(abs(exact[key] - one["value"]) <= third)
    assert np.mean(held) < 0.9


def test_what_depends_on_the_number_of_rows_is_that_of_all_rows(rows, exact):
    drawn = measure(rows, queries=100)
    for key in ("gap/effective_rank/image", "gap/spread_difference", "gap/wasserstein_uniformity"):
        assert drawn[key] == pytest.approx(exact[key], rel=1e-4), key


def test_whole_groups_are_drawn_and_a_collapsed_space_scores_chance():
    groups = GroupSums(torch.arange(90) // 3, 30)
    sample = drawn_sample(groups, 20, seed=1)
    assert len(sample.rows) == 21
    assert torch.equal(torch.unique(sample.rows // 3).repeat_interleave(3), sample.rows // 3)
    same = read_embeddings({name: np.ones((90, 4), dtype=np.float16) for name in ("image", "text")})
    scan = scan_sample(same["image"], same["text"], sample.rows)
    assert scan.cross[0].above.tolist() == [0.0] * 21
    assert scan.cross[0].ties.tolist() == [89.0] * 21
    assert scan.within[1].ties.tolist() == [89.0] * 21


def test_the_size_decides_and_what_needs_every_pair_is_said(rows, exact, monkeypatch):
    assert "sampled" not in exact
    assert "sampled" not in measure(rows, include=("gap",))
    monkeypatch.setattr("gapless.metrics.sampled.EXACT_PAIRS", 1000)
    assert measure(rows, include=("gap",))["sampled"]["of"] == 1500
    assert "sampled" not in measure(rows, include=("gap",), exact=True)
    with pytest.raises(UsageError, match="positives needs every pair"):
        measure(rows, positives=["a"] * 1500, queries=10)


def test_broken_rows_are_named_as_in_an_exact_measurement(rows):
    broken = {**rows, "text": rows["text"].copy()}
    broken["text"][7] = np.nan
    with pytest.raises(DataRefused, match=r"text: 1 of 1500 rows hold NaN or infinite values .row 7"):
        measure(broken, queries=10)


def test_centred_scores_of_drawn_rows_lie_around_those_of_all_rows():
    """The means are those of all rows; the control takes those of the 30 drawn rows, and finds more margin."""
    rows = {name: unit_norm(torch.from_numpy(one).double()) for name, one in pairs(600).items()}
    a, b = rows["image"], rows["text"]
    exact, means = centred_scores(a, b), (a.mean(dim=0), b.mean(dim=0))
    random, found = np.random.default_rng(0), {"all": [], "drawn": []}
    for _ in range(300):
        places = torch.from_numpy(random.permutation(600)[:30])
        groups = GroupSums(torch.arange(30), 30)
        found["all"].append(centred_scores(a[places], b[places], means).margin(groups).value)
        found["drawn"].append(centred_scores(a[places], b[places]).margin(groups).value)
    value = exact.margin(GroupSums(torch.arange(600), 600)).value
    error = np.std(found["all"]) / 300**0.5
    assert abs(np.mean(found["all"]) - value) < 3 * error
    assert np.mean(found["drawn"]) - value > 6 * error
    drawn = measure({name: one.float().numpy() for name, one in rows.items()}, queries=60, include=("further",), seed=3)
    sample = drawn_sample(GroupSums(torch.arange(600), 600), 60, 3).rows
    expected = centred_scores(a[sample], b[sample], means).margin(GroupSums(torch.arange(60), 60)).value
    assert drawn["gap/margin_centred"] == pytest.approx(expected, abs=1e-5)
