"""The figures of mixed search against plain Python, at their closed values, and where they must see a gap."""

import math

import numpy as np
import pytest
import torch

from gapless import measure
from gapless.core.geometry import unit_norm
from gapless.metrics.catalogue import entry_of, label_of
from gapless.metrics.mixed import CURVE_PERCENT, curve_ndcg
from gapless.metrics.similarity import RankCounts

N, DIM = 40, 6
CURVE = [f"mixed/NDCG@10/first_{percent}%" for percent in CURVE_PERCENT]


def drawn(shift: float, seed: int = 0, noise: float = 0.6) -> dict[str, torch.Tensor]:
    """Noisy pairs with a gap of a given size along one axis."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(N, DIM, generator=generator, dtype=torch.float64)
    w = z + noise * torch.randn(N, DIM, generator=generator, dtype=torch.float64)
    z, w = unit_norm(z), unit_norm(w)
    z[:, 0] += shift
    w[:, 0] -= shift
    return {"image": unit_norm(z), "text": unit_norm(w)}


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_curve_is_what_plain_python_gives(shift):
    rows = drawn(shift)
    figures = measure(rows, include=("mixed",))
    for percent, key in zip(CURVE_PERCENT, CURVE, strict=True):
        values = []
        for own, other, share in (("image", "text", percent / 100), ("text", "image", 1 - percent / 100)):
            for query in range(N):
                true = float(rows[own][query] @ rows[other][query])
                above = {
                    name: sum(float(rows[own][query] @ rows[name][row]) > true for row in range(N) if row != query)
                    for name in (own, other)
                }
                rank = 1 + share * above[own] + (1 - share) * above[other]
                values.append(1 / math.log2(1 + rank) if rank <= 10 else 0.0)
        assert figures[key] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_the_rank_is_the_mean_over_drawn_galleries():
    """Two rows of the own modality lie above and one of the other."""
    random = np.random.default_rng(0)
    above = {"own": np.array([1, 1, 0, 0]), "other": np.array([0, 1, 0, 0])}
    is_own = random.random((20_000, 4)) < 0.9
    drawn_ranks = 1 + np.where(is_own, above["own"], above["other"]).sum(axis=1)
    counts = [RankCounts(torch.tensor([float(above[name].sum())]), torch.tensor([0.0])) for name in ("other", "own")]
    value = curve_ndcg(*counts, share_own=0.9).item()
    assert 2 ** (1 / value) - 1 == pytest.approx(drawn_ranks.mean(), abs=0.01)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_rank_recall_and_share_are_what_plain_python_gives(shift):
    rows = drawn(shift)
    figures = measure(rows, include=("mixed",))
    ranks, shares = {"image": [], "text": []}, {10: [], 24: []}
    for own, other in (("image", "text"), ("text", "image")):
        for query in range(N):
            scored = [(float(rows[own][query] @ rows[own][row]), False) for row in range(N) if row != query]
            scored += [(float(rows[own][query] @ rows[other][row]), True) for row in range(N)]
            true = float(rows[own][query] @ rows[other][query])
            ranks[own].append(1 + sum(score > true for score, _ in scored))
            scored.sort(reverse=True)
            for k, found in shares.items():
                found.append(sum(is_other for _, is_other in scored[:k]) / k)
    medians = [torch.tensor(values, dtype=torch.float64).quantile(0.5).item() for values in ranks.values()]
    assert figures["mixed/median_rank"] == pytest.approx(sum(medians) / 2)
    within = [rank <= 24 for values in ranks.values() for rank in values]
    assert figures["mixed/R@24"] == pytest.approx(sum(within) / len(within))
    for k, found in shares.items():
        expected = sum(found) / len(found) / (N / (2 * N - 1))
        assert figures[f"mixed/share_ratio@{k}"] == pytest.approx(expected)


def test_the_ratio_at_ten_is_the_bias_in_other_words():
    figures = measure(drawn(0.3), include=("mixed",))
    other = N / (2 * N - 1)
    assert figures["mixed/share_ratio@10"] * other == pytest.approx(other - figures["mixed/modality_bias"])


def test_a_gap_moves_every_figure_and_retrieval_does_not_see_it():
    closed, gap = (measure(drawn(shift), include=("mixed", "retrieval")) for shift in (0.0, 3.0))
    assert closed["mixed/share_ratio@24"] > 0.8
    assert gap["mixed/share_ratio@24"] < 0.1
    assert gap["mixed/median_rank"] > closed["mixed/median_rank"] + 20
    assert gap["mixed/NDCG@10/first_50%"] < 0.5 * closed["mixed/NDCG@10/first_50%"]
    assert gap["retrieval/mean/R@10"] > 0.5


def test_coinciding_modalities_have_one_value_along_the_curve():
    rows = drawn(0.0, noise=0.0)
    figures = measure(rows, include=("mixed",))
    assert [figures[key] for key in CURVE] == [pytest.approx(1.0)] * 3


def test_all_rows_equal_rank_in_the_middle():
    same = torch.ones(N, DIM)
    figures = measure({"image": same, "text": same}, include=("mixed",))
    assert [figures[key] for key in CURVE] == [0.0] * 3  # rank 20.5 of 40
    assert figures["mixed/share_ratio@24"] == pytest.approx(1.0)
    assert figures["mixed/median_rank"] == pytest.approx(N, abs=0.51)


@pytest.mark.parametrize(("above", "ties", "expected"), [(9, 0, 1 / math.log2(11)), (9, 1, 0.0), (0, 4, 0.5)])
def test_the_cut_at_ten_and_ties_by_hand(above, ties, expected):
    counts = RankCounts(torch.tensor([float(above)]), torch.tensor([float(ties)]))
    assert curve_ndcg(counts, counts, share_own=0.3).item() == pytest.approx(expected)


def test_with_no_distractor_of_its_own_kind_the_curve_is_plain_retrieval():
    cross, within = (RankCounts(torch.tensor([2.0]), torch.tensor([ties])) for ties in (0.0, 9.0))
    assert curve_ndcg(cross, within, share_own=0.0).item() == pytest.approx(1 / math.log2(4))


def test_the_interval_by_groups_stands_around_the_value():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 8, generator=generator)
    rows = {"image": z, "text": z + torch.randn(300, 8, generator=generator)}
    figures = measure(rows, groups=[row // 3 for row in range(300)], include=("mixed",), num_bootstrap=200)
    for key in [*CURVE, "mixed/share_ratio@24", "mixed/median_rank"]:
        assert figures[key]["low"] <= figures[key]["value"] <= figures[key]["high"]
        assert figures[key]["low"] < figures[key]["high"]


def test_three_modalities_have_each_pair_and_their_mean():
    rows = drawn(0.2)
    rows["ecg"] = drawn(0.1, seed=4)["image"]
    figures = measure(rows, include=("mixed",))
    for key in [*CURVE, "mixed/R@24", "mixed/share_ratio@10", "mixed/median_rank"]:
        pairs = [figures[f"{key}/{pair}"] for pair in ("image-text", "image-ecg", "text-ecg")]
        assert figures[key] == pytest.approx(sum(pairs) / 3)
        assert entry_of(f"{key}/image-ecg") is entry_of(key)


def test_two_rows_are_enough():
    figures = measure({"image": torch.eye(2), "text": torch.eye(2)}, include=("mixed",))
    assert figures["mixed/share_ratio@24"] == pytest.approx(1.0)
    assert figures[CURVE[1]] == pytest.approx(1.0)


def test_the_catalogue_knows_the_keys():
    assert label_of("mixed/NDCG@10/first_90%") == "mixed NDCG@10, 90 % of the first modality"
    assert label_of("mixed/share_ratio@24") == "share of the other modality, first 24"
    assert entry_of("mixed/share_ratio@10").closed == "1"
