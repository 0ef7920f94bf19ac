"""Held-out evidence for a setting: folds that keep groups whole, and the retrieval of rows that were not fitted on.

for fold in group_folds(pairs.groups[pairs.train], num_folds=5, seed=0):
    fold.fit, fold.held  # positions in pairs.train
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gapless.core.errors import DataRefused
from gapless.core.geometry import unit_norm
from gapless.metrics.retrieval import expected_reciprocal_rank
from gapless.metrics.similarity import RankCounts

NUM_FOLDS = 5
MAX_SCORED_ROWS = 1000  # of a fold; the cost is the square of the rows


@dataclass(frozen=True)
class Fold:
    """Row numbers to fit on and row numbers to judge on, both ascending; no group has rows in both."""

    fit: np.ndarray
    held: np.ndarray


def group_folds(groups: np.ndarray, num_folds: int = NUM_FOLDS, seed: int = 0) -> list[Fold]:
    """Folds of about equal size that keep groups whole; every row is held out exactly once.

    Args:
        groups: [row] integers, equal where rows belong to one group.
        num_folds: at most so many; where there are fewer groups, one fold per group.
        seed: of which groups share a fold.

    Raises:
        ValueError: fewer than 2 folds.
        DataRefused: all rows are of one group.

    >>> [fold.held.tolist() for fold in group_folds(np.array([7, 7, 8, 9, 8, 9]), num_folds=3)]
    [[3, 5], [0, 1], [2, 4]]
    """
    if num_folds < 2:
        raise ValueError(f"at least 2 folds are needed, got {num_folds}")
    present, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(present) < 2:
        raise DataRefused(
            f"{len(groups)} rows of {len(present)} group(s) give no held-out folds; at least 2 groups are needed to "
            "choose a setting"
        )
    order = np.random.default_rng(seed).permutation(len(present))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the large groups first, so that the folds end up even
    filled = np.zeros(min(num_folds, len(present)))
    fold_of_group = np.empty(len(present), dtype=np.int64)
    for group in order:
        fold_of_group[group] = filled.argmin()
        filled[fold_of_group[group]] += sizes[group]
    fold = fold_of_group[code]
    return [Fold(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(len(filled))]


def scored_rows(held: np.ndarray, seed: int = 0, most: int = MAX_SCORED_ROWS) -> np.ndarray:
    """The held rows that are judged: all of them, or a drawn part of many, ascending."""
    if len(held) <= most:
        return held
    return np.sort(np.random.default_rng(seed).choice(held, most, replace=False))


def reciprocal_ranks(scores: Tensor, positives: Tensor) -> Tensor:
    """1 / rank of the best positive of each query, in (0, 1]; ties count at their expectation.

    Rows that are positives of the query but not its best one are neither above it nor tied with it.

    Args:
        scores: [query, item] similarities; item i is the pair of query i.
        positives: [item] integers, equal where rows count as the same item.

    >>> scores = torch.tensor([[0.5, 0.9, 0.1], [0.2, 0.9, 0.9], [0.9, 0.8, 0.3]])
    >>> reciprocal_ranks(scores, torch.tensor([0, 0, 1]))
    tensor([1.0000, 0.7500, 0.3333])
    """
    is_positive = positives[:, None] == positives[None, :]
    best = scores.masked_fill(~is_positive, -torch.inf).amax(dim=1, keepdim=True)
    is_tied = scores == best
    ties = is_tied.sum(dim=1) - (is_tied & is_positive).sum(dim=1)
    above = (scores > best).sum(dim=1)  # no positive is above the best one
    return expected_reciprocal_rank(RankCounts(above.to(scores.dtype), ties.to(scores.dtype)))


def mean_reciprocal_rank(first: Tensor, second: Tensor, positives: Tensor) -> float:
    """MRR of both directions, in (0, 1], higher is better; 1 when each row is nearest to a positive of it.

    Args:
        first, second: [pair, dim] rows of two modalities in one space; norms do not matter.
        positives: [pair] integers, equal where rows count as the same item.
    """
    scores = unit_norm(first) @ unit_norm(second).T
    both = [reciprocal_ranks(part, positives).mean() for part in (scores, scores.T)]
    return float(sum(both) / 2)
