"""Recall and ranks from rank counts; ties count at their expectation, so that the order of rows has no effect."""

import torch
from torch import Tensor

from gapless.metrics.similarity import LenientCounts, RankCounts

RECALL_AT = (1, 5, 10)


def hit_at_k(counts: RankCounts, k: int) -> Tensor:
    """Probability, per query, that its pair is among the first k when ties stand in random order.

    `clip((k - above) / (ties + 1), 0, 1)`; without ties 1 when the rank is at most k, else 0. Higher is better. When
    all scores are equal it is k / gallery size: a collapsed model scores chance.

    >>> counts = RankCounts(above=torch.tensor([0.0, 1.0, 0.0]), ties=torch.tensor([0.0, 0.0, 3.0]))
    >>> hit_at_k(counts, k=1)
    tensor([1.0000, 0.0000, 0.2500])
    """
    return ((k - counts.above) / (counts.ties + 1)).clamp(0, 1)


def expected_rank(counts: RankCounts) -> Tensor:
    """Rank of the true pair per query, `1 + above + ties / 2`; from 1 (best) to the gallery size.

    >>> expected_rank(RankCounts(above=torch.tensor([0.0, 0.0]), ties=torch.tensor([0.0, 3.0])))
    tensor([1.0000, 2.5000])
    """
    return 1 + counts.above + counts.ties / 2


def expected_reciprocal_rank(counts: RankCounts) -> Tensor:
    """`mean 1 / rank` over the places a tie spans, `(H(above + ties + 1) - H(above)) / (ties + 1)`; in (0, 1].

    >>> expected_reciprocal_rank(RankCounts(above=torch.tensor([0.0, 1.0]), ties=torch.tensor([0.0, 0.0])))
    tensor([1.0000, 0.5000])
    """
    exact = 1 / (1 + counts.above)
    spread = torch.digamma(counts.above + counts.ties + 2) - torch.digamma(counts.above + 1)
    return torch.where(counts.ties == 0, exact, spread / (counts.ties + 1))


def lenient_hit_at_k(counts: LenientCounts, k: int) -> Tensor:
    """Probability that one of several positives is among the first k (`hit@k`, not the share of positives found).

    Of `ties` false and `positives` true items on the best score, k - above places are drawn without replacement:
    `1 - prod_m (ties - m) / (ties + positives - m)`.
    """
    places = (k - counts.above).clamp(0, k)
    missed = torch.ones_like(counts.above)
    for m in range(k):
        drawn = m < places
        wrong = (counts.ties - m).clamp_min(0)
        left = (counts.ties + counts.positives - m).clamp_min(1)
        missed = torch.where(drawn, missed * wrong / left, missed)
    return 1 - missed


def mixed_counts(cross: RankCounts, within: RankCounts) -> RankCounts:
    """The same query in the gallery of both modalities together, itself left out."""
    return RankCounts(cross.above + within.above, cross.ties + within.ties)
