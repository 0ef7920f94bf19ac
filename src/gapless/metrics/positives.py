"""Recall where several rows show one item, as in benchmarks with five captions per image.

An image is in five rows, once for each caption. Any of its captions is right for the image, and the one image is right
for each caption. Copies of a row inside its item count once, in the gallery and among the queries: otherwise five
copies of one wrong image would fill the first five places.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gapless.core.geometry import blocks, pairwise_cosine
from gapless.metrics.retrieval import RECALL_AT, lenient_hit_at_k
from gapless.metrics.similarity import LenientCounts, tie_tolerance
from gapless.metrics.uncertainty import Figure, GroupSums, share_figure

ROWS_AT_ONCE = 1024


def item_figures(
    rows: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]], items: Tensor, groups: GroupSums
) -> dict[str, Figure]:
    """`lenient_R@K` in every direction, where rows of one item are positives of each other."""
    distinct = {name: distinct_rows(one, items) for name, one in rows.items()}
    return {
        f"retrieval/{a}_to_{b}/{key}": figure
        for pair in pairs
        for a, b in (pair, pair[::-1])
        for key, figure in item_recalls(rows[a], rows[b], distinct[a], distinct[b], items, groups).items()
    }


def item_recalls(
    queries: Tensor, gallery: Tensor, query_rows: Tensor, gallery_rows: Tensor, items: Tensor, groups: GroupSums
) -> dict[str, Figure]:
    """`lenient_R@K` of one direction, in [0, 1], higher is better.

    Args:
        queries: [pair, dim] unit-norm rows of the queries' modality.
        gallery: [pair, dim] unit-norm rows of the other one.
        query_rows: indices of the queries, from `distinct_rows(queries, items)`.
        gallery_rows: indices of the candidates, from `distinct_rows(gallery, items)`.
        items: [pair] integers, equal where rows show the same item.
        groups: what the bootstrap resamples.
    """
    counts = item_counts(queries[query_rows], gallery[gallery_rows], items[query_rows], items[gallery_rows])
    of_queries = GroupSums(groups.index[query_rows], groups.num_groups)
    return {f"lenient_R@{k}": share_figure(lenient_hit_at_k(counts, k), of_queries) for k in RECALL_AT}


def distinct_rows(rows: Tensor, items: Tensor) -> Tensor:
    """Indices of the rows without those that repeat an earlier one of their item, ascending.

    A row repeats another when their cosine is 1 up to rounding.

    >>> distinct_rows(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
    tensor([0, 2])
    """
    tolerance = tie_tolerance(rows)
    is_distinct = torch.ones(len(rows), dtype=torch.bool)
    for members in _members(items):
        left = members
        while len(left) > 1:  # keeps the first remaining row and removes its copies
            others = left[1:]
            is_copy = rows[others] @ rows[left[0]] >= 1 - tolerance
            is_distinct[others[is_copy]] = False
            left = others[~is_copy]
    return is_distinct.nonzero().flatten()


def item_counts(queries: Tensor, gallery: Tensor, query_items: Tensor, gallery_items: Tensor) -> LenientCounts:
    """How many candidates score above, and how many tie with, the best positive of each query.

    Args:
        queries: [query, dim] unit-norm rows.
        gallery: [candidate, dim] unit-norm rows.
        query_items: [query] the item of each query.
        gallery_items: [candidate] the item of each candidate; every item of a query is among them.
    """
    tolerance = tie_tolerance(queries)
    best, positives = _best_positives(queries, gallery, query_items, gallery_items, tolerance)
    above, reached = torch.zeros_like(positives), torch.zeros_like(positives)
    for part in blocks(len(queries), ROWS_AT_ONCE):
        for columns in blocks(len(gallery), ROWS_AT_ONCE):
            scores = queries[part] @ gallery[columns].T
            above[part] += (scores > best[part, None] + tolerance).sum(dim=1)
            reached[part] += (scores >= best[part, None] - tolerance).sum(dim=1)
    return LenientCounts(above, (reached - above - positives).clamp_min(0), positives)


def _best_positives(
    queries: Tensor, gallery: Tensor, query_items: Tensor, gallery_items: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The best score among each query's positives, and how many of them reach it."""
    best = queries.new_full((len(queries),), -torch.inf)
    positives = torch.ones(len(queries), dtype=torch.float64)
    order = gallery_items.argsort()
    start = torch.searchsorted(gallery_items[order], query_items)
    count = torch.searchsorted(gallery_items[order], query_items, right=True) - start
    alone = (count == 1).nonzero().flatten()
    best[alone] = pairwise_cosine(queries[alone], gallery[order[start[alone]]])
    several = (count > 1).nonzero().flatten()
    for own in _members(query_items[several]):
        rows = several[own]
        candidates = order[start[rows[0]] : start[rows[0]] + count[rows[0]]]
        for part in rows.split(ROWS_AT_ONCE):
            scores = [queries[part] @ gallery[some].T for some in candidates.split(ROWS_AT_ONCE)]
            best[part] = torch.stack([one.amax(dim=1) for one in scores]).amax(dim=0)
            level = best[part, None] - tolerance
            positives[part] = sum(((one >= level).sum(dim=1) for one in scores), torch.zeros(len(part))).double()
    return best, positives


def _members(classes: Tensor) -> list[Tensor]:
    """The indices of each class, ascending."""
    if not len(classes):
        return []
    order = classes.argsort(stable=True)
    return list(order.split(torch.unique(classes, return_counts=True)[1].tolist()))
