"""The nearest neighbours of every row, inside its modality and in the other one, updated tile by tile.

The nearest rows of the mixed gallery are the best of both lists. Where rows tie at the k-th place, each of them is
among the k nearest with the probability of a random order, so that a collapsed space scores chance.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gapless.core.geometry import blocks
from gapless.metrics.inputs import UnitRows
from gapless.metrics.score_maxima import ScoreStrips

SPARE = 2  # neighbours stored beyond k, so that nearly every tie at the k-th place is complete
ROWS_AT_ONCE = 256
GALLERY_AT_ONCE = 8192  # of a gallery that is read from a file
SCORES_AT_ONCE = 1 << 26  # of a few queries with a whole gallery


class Nearest:
    """The highest scores of each row in one gallery so far, and which rows of the gallery have them.

    Args:
        rows: [row, dim] the queries; their number, type and device are used.
        width: scores stored a row.
    """

    def __init__(self, rows: Tensor, width: int) -> None:
        shape = (len(rows), width)
        self.scores = torch.full(shape, -math.inf, dtype=rows.dtype, device=rows.device)
        self.places = torch.zeros(shape, dtype=torch.int32, device=rows.device)

    def add(self, rows: slice, gallery: slice, strips: ScoreStrips) -> None:
        """Update the neighbours with a tile of scores; a strip is skipped when it has none above its query's last."""
        queries, new_scores, new_places = _newcomers(strips, self.scores[rows, -1], self.scores.shape[1])
        if not len(queries):
            return
        queries = queries + rows.start
        merged = torch.cat([self.scores[queries], new_scores], dim=1)
        places = torch.cat([self.places[queries], (new_places + gallery.start).to(torch.int32)], dim=1)
        best = merged.topk(self.scores.shape[1], dim=1)
        self.scores[queries] = best.values
        self.places[queries] = places.gather(1, best.indices)


@dataclass(frozen=True)
class Neighbours:
    """The k nearest rows of every query in one gallery, once the pass has ended.

    Args:
        nearest: what the pass has stored.
        queries, gallery: [row, dim] unit-norm rows.
        num_neighbours: k; fewer where the gallery has fewer rows.
        scale: a score is scale * cos.
        tolerance: cosines that differ by less are tied.
        is_own: whether the gallery is that of the queries; a row is then no neighbour of itself.
        rows: [query] where the queries stand in the gallery; None where they are all of its rows.
    """

    nearest: Nearest
    queries: Tensor
    gallery: Tensor | UnitRows
    num_neighbours: int
    scale: float
    tolerance: float
    is_own: bool
    rows: Tensor | None = None

    def first(self, num_neighbours: int) -> "Neighbours":
        """The same with a smaller k, from what is stored."""
        return self if num_neighbours == self.num_neighbours else replace(self, num_neighbours=num_neighbours)

    @property
    def k(self) -> int:
        return min(self.num_neighbours, len(self.gallery) - self.is_own)

    @cached_property
    def shares(self) -> Tensor:
        """[row, stored] how surely each stored row is among the k nearest, 0 to 1; not for the rows of `unfinished`."""
        scores = self.nearest.scores
        return _shares(scores, scores[:, self.k - 1, None], self.scale * self.tolerance, self.k)

    @cached_property
    def unfinished(self) -> Tensor:
        """Row numbers whose tie at the k-th place may continue beyond what is stored."""
        scores = self.nearest.scores
        return (scores[:, -1] >= scores[:, self.k - 1] - self.scale * self.tolerance).nonzero().flatten()

    def shares_of_all(self, rows: Tensor) -> Tensor:
        """[row, gallery] the same of every row of the gallery, computed anew for a few queries."""
        scores = _scores(self, rows)
        # The k-th place of these products: those of another shape may lie a rounding step beyond the tolerance.
        level = scores.topk(self.k, dim=1).values[:, -1, None]
        return _shares(scores, level, self.scale * self.tolerance, self.k)

    def occurrence(self) -> Tensor:
        """[gallery] how many queries have each row among their k nearest; the mean is k * queries / gallery."""
        shares = self.shares.clone()
        counts = torch.zeros(len(self.gallery), dtype=torch.float64, device=shares.device)
        shares[self.unfinished] = 0.0
        counts.index_add_(0, self.nearest.places.flatten().long(), shares.flatten())
        for part in blocks(len(self.unfinished), _at_once(len(self.gallery))):
            counts += self.shares_of_all(self.unfinished[part]).sum(dim=0)
        return counts


def overlap(first: Neighbours, second: Neighbours) -> Tensor:
    """[row] share of the k nearest rows that are the same in both galleries, in [0, 1]; chance is k / rows."""
    k = min(first.k, second.k)
    result = torch.zeros(len(first.queries), dtype=torch.float64, device=first.queries.device)
    for part in blocks(len(result), ROWS_AT_ONCE):
        same = first.nearest.places[part, :, None] == second.nearest.places[part, None, :]
        result[part] = (first.shares[part, :, None] * second.shares[part, None, :] * same).sum(dim=(1, 2)) / k
    unfinished = torch.unique(torch.cat([first.unfinished, second.unfinished]))
    for part in blocks(len(unfinished), _at_once(len(first.gallery))):
        rows = unfinished[part]
        result[rows] = (first.shares_of_all(rows) * second.shares_of_all(rows)).sum(dim=1) / k
    return result


def num_other(inside: Neighbours, across: Neighbours) -> Tensor:
    """[row] expected number of the other modality's rows among the k nearest of the mixed gallery.

    Args:
        inside: the neighbours in the queries' own modality.
        across: those in the other one, of the same queries and k.
    """
    k = min(across.num_neighbours, 2 * len(across.gallery) - 1)
    slack = across.scale * across.tolerance
    width = across.nearest.scores.shape[1]
    best = torch.cat([inside.nearest.scores, across.nearest.scores], dim=1).topk(width, dim=1)
    last = best.values[:, k - 1, None]
    result = (_shares(best.values, last, slack, k) * (best.indices >= width)).sum(dim=1)
    unfinished = (best.values[:, -1] >= last[:, 0] - slack).nonzero().flatten()
    for part in blocks(len(unfinished), _at_once(len(inside.gallery))):
        rows = unfinished[part]
        scores = torch.cat([_scores(inside, rows), _scores(across, rows)], dim=1)
        level = scores.topk(k, dim=1).values[:, -1, None]
        result[rows] = _shares(scores, level, slack, k)[:, len(inside.gallery) :].sum(dim=1)
    return result


def _at_once(gallery: int) -> int:
    """How many queries are compared with a whole gallery at once."""
    return max(1, min(ROWS_AT_ONCE, SCORES_AT_ONCE // gallery))


def _scores(neighbours: Neighbours, rows: Tensor) -> Tensor:
    """[row, gallery] the scores of a few queries, -inf for a row with itself."""
    scaled, gallery = neighbours.scale * neighbours.queries[rows], neighbours.gallery
    if isinstance(gallery, Tensor):
        scores = scaled @ gallery.T
    else:
        scores = torch.cat([scaled @ gallery[part].T for part in blocks(len(gallery), GALLERY_AT_ONCE)], dim=1)
    if neighbours.is_own:
        own = rows if neighbours.rows is None else neighbours.rows[rows]
        scores[torch.arange(len(rows), device=rows.device), own] = -math.inf
    return scores


def _shares(scores: Tensor, last: Tensor, slack: float, k: int) -> Tensor:
    """1 above the k-th place, the open places divided among the rows that tie with it, 0 below; float64."""
    above = scores > last + slack
    tied = (scores >= last - slack) & ~above
    left = (k - above.sum(dim=1, keepdim=True).double()) / tied.sum(dim=1, keepdim=True)
    return above + left * tied


def _newcomers(strips: ScoreStrips, level: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries with scores above their level, ascending, those scores and their places in the tile's gallery.

    Returns:
        [query]; [query, at most width] with -inf beside the scores; the places, of the same shape.
    """
    queries, places, values = strips.reaching(strips.above(level))
    if strips.dim == 0:  # else they are in order
        queries, order = queries.sort()
        values, places = values[order], places[order]
    hit, column = (values > level[queries, None]).nonzero(as_tuple=True)
    touched, slot, counts = torch.unique_consecutive(queries[hit], return_inverse=True, return_counts=True)
    if not len(touched):
        return touched, values, places
    place = torch.arange(len(hit), device=hit.device) - (counts.cumsum(dim=0) - counts)[slot]
    new_scores = values.new_full((len(touched), int(counts.max())), -math.inf)
    new_scores[slot, place] = values[hit, column]
    new_places = torch.zeros_like(new_scores, dtype=torch.int64)
    new_places[slot, place] = strips.position(places[hit], column)
    if new_scores.shape[1] <= width:
        return touched, new_scores, new_places
    best = new_scores.topk(width, dim=1)
    return touched, best.values, new_places.gather(1, best.indices)
