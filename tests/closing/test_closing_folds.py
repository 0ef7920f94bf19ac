"""Folds that keep groups whole, and the reciprocal rank of the best positive, against plain Python."""

from itertools import permutations

import numpy as np
import pytest
import torch

from gapless.closing.folds import MAX_SCORED_ROWS, group_folds, mean_reciprocal_rank, reciprocal_ranks, scored_rows
from gapless.core.errors import DataRefused


def test_every_row_is_held_out_once_and_no_group_is_on_both_sides() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 300)
    folds = group_folds(groups, num_folds=5, seed=3)
    assert np.array_equal(np.sort(np.concatenate([fold.held for fold in folds])), np.arange(300))
    for fold in folds:
        assert not set(groups[fold.fit]) & set(groups[fold.held])
        assert len(fold.fit) + len(fold.held) == 300
        assert abs(len(fold.held) - 60) <= np.bincount(groups).max()


def test_the_seed_decides_and_few_groups_make_few_folds() -> None:
    groups = np.arange(50)
    same, again, other = (group_folds(groups, seed=seed)[0].held.tolist() for seed in (0, 0, 1))
    assert same == again != other
    assert len(group_folds(np.array([4, 4, 9, 9, 2]), num_folds=5)) == 3


def test_one_group_gives_no_folds() -> None:
    with pytest.raises(DataRefused, match=r"3 rows of 1 group\(s\) give no held-out folds; at least 2 groups"):
        group_folds(np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="at least 2 folds are needed, got 1"):
        group_folds(np.arange(3), num_folds=1)


def slow_reciprocal_rank(scores: list[float], positive: list[bool]) -> float:
    """The mean over all orders of the items that agree with the scores; the first positive counts."""
    best = max(score for score, right in zip(scores, positive, strict=True) if right)
    wrong = [score for score, right in zip(scores, positive, strict=True) if not right]
    items = [(-score, "wrong") for score in wrong] + [(-best, "right")]
    orders = [order for order in permutations(items) if list(order) == sorted(order, key=lambda item: item[0])]
    return float(np.mean([1 / (1 + [kind for _, kind in order].index("right")) for order in orders]))


def test_reciprocal_ranks_are_those_of_plain_python() -> None:
    random = np.random.default_rng(1)
    scores = torch.from_numpy(random.integers(0, 4, (6, 6)) / 4)  # many ties
    positives = torch.tensor([0, 0, 1, 2, 2, 3])
    expected = [slow_reciprocal_rank(scores[row].tolist(), (positives == positives[row]).tolist()) for row in range(6)]
    np.testing.assert_allclose(reciprocal_ranks(scores, positives), expected)


def test_mean_reciprocal_rank_of_known_spaces() -> None:
    rows, own = torch.eye(8), torch.arange(8)
    assert mean_reciprocal_rank(rows, 3 * rows, own) == 1
    assert mean_reciprocal_rank(rows, rows.roll(1, dims=0), own) < 0.3
    chance = float(np.mean([1 / rank for rank in range(1, 9)]))
    assert mean_reciprocal_rank(torch.ones(8, 2), torch.ones(8, 2), own) == pytest.approx(chance)
    assert mean_reciprocal_rank(torch.ones(8, 2), torch.ones(8, 2), torch.zeros(8)) == 1  # all are positives


def test_many_rows_are_judged_on_a_drawn_part() -> None:
    assert scored_rows(np.arange(10)).tolist() == list(range(10))
    drawn = scored_rows(np.arange(5000), seed=1)
    assert len(set(drawn.tolist())) == MAX_SCORED_ROWS
    assert drawn.tolist() == sorted(drawn.tolist())
