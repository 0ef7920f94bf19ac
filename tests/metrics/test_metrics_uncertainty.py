"""Intervals: drawn by group, the gallery fixed, repeatable, as wide as repetitions of the experiment would be."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from gapless.metrics.measure import measure, measure_difference
from gapless.metrics.uncertainty import (
    Figure,
    GroupSums,
    bootstrap,
    bootstrap_difference,
    combine,
    draw_counts,
    mean_figure,
    median_figure,
    ratio_figure,
    share_bounds,
    share_figure,
)

QUICK = ("gap", "retrieval", "mixed")


def every_row(n):
    return GroupSums(torch.arange(n), n)


def pairs(generator, n=150, dim=12):
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return {"image": z, "text": z + torch.randn(n, dim, generator=generator, dtype=torch.float64) + 0.4}


def test_draws_are_whole_repeatable_and_by_seed():
    first = torch.cat(list(draw_counts(7, 100, seed=3)))
    assert first.shape == (100, 7)
    assert torch.all(first.sum(dim=1) == 7)
    assert torch.equal(first, torch.cat(list(draw_counts(7, 100, seed=3))))
    assert not torch.equal(first, torch.cat(list(draw_counts(7, 100, seed=4))))
    assert torch.allclose(first.mean(dim=0), torch.ones(7, dtype=torch.float64), atol=0.3)


def test_replicates_equal_the_figure_of_the_rows_written_out():
    """Drawing a group twice is the same as writing its rows twice, for every figure that is a mean over rows."""
    values = torch.tensor([1.0, 4.0, 2.0, 8.0, 16.0], dtype=torch.float64)
    groups = GroupSums(torch.tensor([0, 0, 1, 2, 2]), 3)
    draws = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    written = [[1, 4, 1, 4, 2], [8, 16, 8, 16, 8, 16]]
    for figure, how in ((mean_figure(values, groups), np.mean), (median_figure(values, groups), np.median)):
        assert figure.replicates(draws).tolist() == pytest.approx([float(how(rows)) for rows in written])
    share = ratio_figure(values, values * 2, groups)
    assert share.replicates(draws).tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("groups", [None, [row // 4 for row in range(60)]])
def test_gap_replicates_equal_the_gap_of_resampled_rows(groups):
    """Means of cosines and distances, recomputed from the rows that a draw wrote out."""
    from gapless.metrics import gap

    generator = torch.Generator().manual_seed(0)
    rows = {name: torch.nn.functional.normalize(one, dim=1) for name, one in pairs(generator, n=60).items()}
    index = torch.arange(60) if groups is None else torch.tensor(groups)
    sums = GroupSums(index, int(index.max()) + 1)
    draws = next(draw_counts(sums.num_groups, 3, seed=1))
    z, w = rows["image"], rows["text"]
    negative = gap.off_diagonal_cosine(z, w, sums).replicates(draws)
    distance = gap.centroid_distance(z, w, sums)[0].replicates(draws)
    for replicate, counts in enumerate(draws):
        chosen = torch.repeat_interleave(torch.arange(60), counts[index].long())
        scores = z[chosen] @ w[chosen].T
        other = chosen[:, None] != chosen[None, :]
        assert negative[replicate] == pytest.approx(float(scores[other].mean()), abs=1e-12)
        resampled = float((z[chosen].mean(dim=0) - w[chosen].mean(dim=0)).norm())
        # the length that resampling adds on average is taken off again
        assert distance[replicate] == pytest.approx(resampled, rel=0.06)
        assert distance[replicate] < resampled


def test_intervals_cover_the_truth_as_often_as_they_say():
    """60 experiments from one population; 95 % of the intervals should hold its value (known to a large sample)."""
    generator = torch.Generator().manual_seed(0)
    keys = (
        "gap/true_pair_cosine",
        "gap/centroid_distance_unbiased",
        "gap/negative_cosine",
        "gap/within_cosine/text",
        "gap/uniformity/image",
    )
    truth = measure(pairs(generator, n=8000), include=("gap",))
    covered = dict.fromkeys(keys, 0)
    for _ in range(60):
        figures = measure(pairs(generator), include=("gap",), num_bootstrap=200)
        for key in keys:
            covered[key] += figures[key]["low"] <= truth[key] <= figures[key]["high"]
    for key, count in covered.items():
        assert count >= 50, (key, count)


def test_rows_that_repeat_inside_a_group_do_not_narrow_the_interval():
    """The control: resampling rows believes that ten copies are ten patients."""
    generator = torch.Generator().manual_seed(0)
    small = pairs(generator, n=40)
    copied = {name: one.repeat_interleave(10, dim=0) for name, one in small.items()}
    patients = [row // 10 for row in range(400)]

    def width(embeddings, groups):
        figure = measure(embeddings, groups=groups, include=("gap",), num_bootstrap=400)["gap/true_pair_cosine"]
        return figure["high"] - figure["low"]

    honest, by_group, by_row = width(small, None), width(copied, patients), width(copied, None)
    assert by_group == pytest.approx(honest, rel=0.15)
    assert by_row < honest / 2.5


def test_every_figure_with_an_interval_lies_in_it_and_the_value_is_the_plain_one():
    embeddings = pairs(torch.Generator().manual_seed(2))
    plain = measure(embeddings, include=(*QUICK, "probe"))
    found = measure(embeddings, include=(*QUICK, "probe"), num_bootstrap=200)
    assert plain.keys() == found.keys()
    without = {key for key, value in found.items() if not isinstance(value, dict)}
    assert without == {"n", "gallery_size", "gap/wasserstein_uniformity"}
    for key in found.keys() - without:
        assert found[key]["value"] == plain[key]
        assert found[key]["low"] <= plain[key] <= found[key]["high"], key
        assert math.isfinite(found[key]["low"])
    assert found == measure(embeddings, include=(*QUICK, "probe"), num_bootstrap=200)


def test_a_paired_difference_is_far_narrower_than_the_difference_of_two_intervals():
    generator = torch.Generator().manual_seed(0)
    first = pairs(generator)
    noise = 0.05 * torch.randn(150, 12, generator=generator, dtype=torch.float64)
    second = {"image": first["image"] + noise, "text": first["text"]}
    key = "gap/true_pair_cosine"
    alone = measure(first, num_bootstrap=300, include=("gap",))[key]
    difference = measure_difference([first], [second], num_bootstrap=300, include=("gap",))[key]
    assert difference["high"] - difference["low"] < (alone["high"] - alone["low"]) / 3
    plain = measure(first, include=("gap",))[key] - measure(second, include=("gap",))[key]
    assert difference["value"] == pytest.approx(plain)
    nothing = measure_difference([first, second], [second, first], num_bootstrap=20)
    for key, interval in nothing.items():
        assert interval == {"value": pytest.approx(0), "low": pytest.approx(0), "high": pytest.approx(0)}, key


def test_a_figure_that_cannot_be_resampled_has_no_interval():
    groups = every_row(4)
    figures = {"fixed": Figure(1.0), "mean": mean_figure(torch.arange(4.0), groups)}
    assert bootstrap(figures, 4, num_bootstrap=10).keys() == {"mean"}
    assert bootstrap_difference(figures, figures, 4, num_bootstrap=10).keys() == {"mean"}


@pytest.mark.parametrize(("hits", "trials"), [(1, 20), (8, 10), (37, 400), (399, 400)])
def test_the_bounds_of_a_share_are_wilsons(hits, trials):
    share = hits / trials
    expected = stats.binomtest(hits, trials).proportion_ci(method="wilson")
    found = share_bounds(share, share * (1 - share) / trials, trials=10**9)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_values_that_are_all_alike_leave_the_same_room_whatever_their_rounding():
    """A collapsed model has a recall of k / gallery at every query: the replicates of 1/4 are equal, of 1/10 nearly."""
    groups = every_row(40)
    for value in (0.25, 0.1):
        interval = bootstrap(
            {"R": share_figure(torch.full((40,), value, dtype=torch.float64), groups)}, 40, num_bootstrap=50
        )["R"]
        expected = stats.binomtest(round(40 * value), 40).proportion_ci(method="wilson")
        assert (interval["low"], interval["high"]) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_a_single_replicate_has_no_variance():
    interval = bootstrap({"R": share_figure(torch.tensor([1.0, 0.0, 1.0, 1.0]), every_row(4))}, 4, num_bootstrap=1)["R"]
    assert interval["low"] < 0.75 < interval["high"]


@pytest.mark.parametrize("trials", [5, 50, 400])
def test_a_share_without_a_failure_or_a_hit_leaves_room_for_one(trials):
    low, high = share_bounds(1.0, 0.0, trials)
    square = stats.t.ppf(0.975, trials - 1) ** 2
    assert (low, high) == (pytest.approx(trials / (trials + square)), 1.0)
    assert share_bounds(0.0, 0.0, trials) == (0.0, pytest.approx(1 - low))
    # The exact interval of so many trials (Clopper and Pearson) begins near there.
    assert 1 - low == pytest.approx(1 - 0.025 ** (1 / trials), rel=0.25)


def test_the_interval_of_a_rare_failure_holds_it():
    """400 experiments of 150 cases with one to three rows and 0.3 % of failures; the control is the percentiles."""
    random = np.random.default_rng(0)
    covered = {"share": 0, "percentiles": 0}
    for seed in range(400):
        index = torch.from_numpy(np.repeat(np.arange(150), random.integers(1, 4, 150)))
        values = torch.from_numpy((random.random(len(index)) > 0.003).astype(float))
        groups = GroupSums(index, 150)
        figures = {"share": share_figure(values, groups), "percentiles": mean_figure(values, groups)}
        for key, found in bootstrap(figures, 150, num_bootstrap=100, seed=seed).items():
            covered[key] += found["low"] <= 0.997 <= found["high"]
    assert covered["percentiles"] < 0.75 * 400
    assert covered["share"] >= 0.93 * 400


def test_a_probe_without_an_error_and_a_mean_of_recalls_of_1_have_intervals():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    apart = {"image": z + 9, "text": z - 9}
    found = measure(apart, num_bootstrap=50, include=("retrieval", "probe", "further"))
    for key in ("gap/separability_auc", "gap/linear_separability"):
        assert (found[key]["value"], found[key]["high"]) == (1, 1)
        assert 0.8 < found[key]["low"] < 0.96, key
    same = measure({"image": z, "text": z}, num_bootstrap=50, include=("retrieval",))
    recall, of_one = same["retrieval/mean/R@1"], same["retrieval/image_to_text/R@1"]
    assert (recall["value"], recall["high"], recall["low"]) == (1, 1, pytest.approx(of_one["low"]))
    assert 0.9 < recall["low"] < 0.96


def test_differences_and_transformed_shares_are_no_shares():
    groups = every_row(4)
    share = share_figure(torch.tensor([1.0, 1.0, 0.0, 1.0]), groups)
    assert combine([share, share]).trials == 4
    assert combine([share, mean_figure(torch.arange(4.0), groups)]).trials is None
    assert combine([share, share], lambda parts: parts[0] - parts[1]).trials is None
