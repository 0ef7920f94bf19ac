"""One gallery of two modalities: their shares among the nearest rows, and a curve over what the gallery is made of."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from gapless.core.geometry import blocks
from gapless.metrics.catalogue import FIGURES, FigureEntry
from gapless.metrics.figure_entries import ALL_PRODUCTS, MIXED
from gapless.metrics.similarity import RankCounts, tie_tolerance

MIXED_RECALL_AT = (1, 5, 10, 24)  # 24 rows are the first page of the search page
NEIGHBOURS_AT = (10, 24)
CURVE_PERCENT = (10, 50, 90)
NDCG_AT = 10
MAX_CURVE_QUERIES = 500
QUERIES_AT_ONCE = 256

ENTRIES = (
    FigureEntry(
        "mixed/share_ratio@<k>",
        "share of the other modality, first <k>",
        "share of the other modality among each row's <k> nearest rows, relative to its share of the gallery, "
        "n / (2n - 1)",
        low=0.0,
        high=2.0,
        better="higher",
        family=MIXED,
        closed="1",
        misleads="noise has 1 too, and above 1 the other modality hides the own; read it with mixed R@k",
        cost=ALL_PRODUCTS,
    ),
    FigureEntry(
        "mixed/median_rank",
        "mixed median rank",
        "median rank of the true pair in one gallery of both modalities, mean of both directions; 1 = first",
        low=1.0,
        high=math.inf,
        better="lower",
        family=MIXED,
        misleads="grows with the gallery; near-copies of the query count as wrong",
        cost=ALL_PRODUCTS,
    ),
    FigureEntry(
        f"mixed/NDCG@{NDCG_AT}/first_<k>%",
        f"mixed NDCG@{NDCG_AT}, <k> % of the first modality",
        "each other pair is in the gallery once, <k> % of them as the first modality and the rest as the second; the "
        f"query's pair is the one relevant item: mean of 1 / log2(1 + rank), 0 beyond {NDCG_AT}; both directions",
        low=0.0,
        high=1.0,
        better="higher",
        family=MIXED,
        unit="fraction",
        closed="one value at 10, 50 and 90 %",
        misleads=f"depends on the gallery size. The ideal is 1: the pair found first. At most {MAX_CURVE_QUERIES} "
        "queries are drawn",
        cost="products of the drawn queries",
        source="Yuhui Zhang et al., arXiv 2507.19054 (the curve)",
    ),
)
for entry in ENTRIES:
    FIGURES.add(entry.key, entry)


def expected_ndcg(counts: RankCounts, k: int = NDCG_AT) -> Tensor:
    """NDCG of one relevant item within the first k, per query; ties at their expectation over every order.

    The ideal DCG is that of all relevant items (one, found first: 1), and not of those that were found.

    >>> expected_ndcg(RankCounts(above=torch.tensor([0.0, 1.0, 10.0, 0.0]), ties=torch.tensor([0.0, 0.0, 0.0, 1.0])))
    tensor([1.0000, 0.6309, 0.0000, 0.8155], dtype=torch.float64)
    """
    ranks = torch.arange(1, k + 1, dtype=torch.float64, device=counts.above.device)
    total = torch.cat([ranks.new_zeros(1), (1 / torch.log2(1 + ranks)).cumsum(dim=0)])
    first = counts.above.long().clamp(0, k)
    last = (counts.above + counts.ties + 1).long().clamp(0, k)
    return (total[last] - total[first]) / (counts.ties.double() + 1)


def curve_counts(
    query: Tensor, other: Tensor, percent_own: tuple[int, ...], chosen: Tensor, order: Tensor
) -> list[RankCounts]:
    """Ranks of the chosen queries' pairs in galleries that hold every other pair once, in one modality or the other.

    Args:
        query: [pair, dim] unit-norm rows of the modality asked with.
        other: [pair, dim] of the other one; row i is the pair of query i and always in its gallery.
        percent_own: percentages of the other pairs that are in the gallery as the query's modality, ascending.
        chosen: [query] numbers of the queries.
        order: [pair] a permutation: the first part of it is in the gallery as the query's modality.

    Returns:
        one RankCounts ([query]) for each percentage.
    """
    num_rows = len(query)
    edges = [0, *(round(num_rows * percent / 100) for percent in percent_own), num_rows]
    tolerance = tie_tolerance(query)
    own_rows, other_rows = query[order], other[order]
    place = torch.empty_like(order).scatter_(0, order, torch.arange(num_rows, device=order.device))
    parts: list[list[RankCounts]] = [[] for _ in percent_own]
    for block in blocks(len(chosen), QUERIES_AT_ONCE):
        asked = chosen[block]
        true = (query[asked] * other[asked]).sum(dim=1)
        counted = []
        for gallery in (own_rows, other_rows):
            scores = query[asked] @ gallery.T
            scores[torch.arange(len(asked), device=asked.device), place[asked]] = -math.inf
            above = scores > (true + tolerance)[:, None]
            reached = scores >= (true - tolerance)[:, None]
            counted.append([_by_strip(flags, edges) for flags in (above, reached)])
        for number, part in enumerate(parts):
            inside = number + 1  # strips before the edge are of the query's modality, those after it of the other
            above_, reached_ = (
                counted[0][kind][:, :inside].sum(dim=1) + counted[1][kind][:, inside:].sum(dim=1) for kind in range(2)
            )
            part.append(RankCounts(above_, reached_ - above_))
    return [RankCounts(torch.cat([one.above for one in part]), torch.cat([one.ties for one in part])) for part in parts]


def _by_strip(flags: Tensor, edges: list[int]) -> Tensor:
    """[query, strip] how many flags are set between the edges."""
    strips = [flags[:, start:stop].sum(dim=1) for start, stop in pairwise(edges)]
    return torch.stack(strips, dim=1).double()


def drawn_queries(num_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """The queries of the curve, ascending, and the order in which pairs enter the gallery as the first modality."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(num_rows, generator=generator)[:MAX_CURVE_QUERIES].sort().values
    return chosen, torch.randperm(num_rows, generator=generator)


def curve(first: Tensor, second: Tensor, seed: int) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    """NDCG of both directions in galleries with 10, 50 and 90 % of the first modality.

    Returns:
        the numbers of the queries, and percent -> ([query] of the first modality, [query] of the second).
    """
    chosen, order = drawn_queries(len(first), seed)
    forth = curve_counts(first, second, CURVE_PERCENT, chosen, order)
    backwards = tuple(100 - percent for percent in reversed(CURVE_PERCENT))
    back = curve_counts(second, first, backwards, chosen, order.flip(0))[::-1]
    return chosen, {
        percent: (expected_ndcg(one), expected_ndcg(two))
        for percent, one, two in zip(CURVE_PERCENT, forth, back, strict=True)
    }
