"""The nearest neighbours of every row in the gallery of both modalities, updated tile by tile."""

import math

import torch
from torch import Tensor

from gapless.core.geometry import blocks
from gapless.metrics.score_maxima import ScoreStrips

SPARE = 2  # neighbours stored beyond k, so that nearly every tie at the k-th place is complete
ROWS_AT_ONCE = 256


class Nearest:
    """The highest scores of each row so far, and which of them belong to the other modality; a score is scale * cos."""

    def __init__(self, rows: Tensor, num_neighbours: int, scale: float) -> None:
        self.scale = scale
        self.num_neighbours = min(num_neighbours, 2 * len(rows) - 1)
        shape = (len(rows), self.num_neighbours + SPARE)
        self.scores = torch.full(shape, -math.inf, dtype=rows.dtype, device=rows.device)
        self.other = torch.zeros(shape, dtype=torch.bool, device=rows.device)

    def add(self, rows: slice, strips: ScoreStrips, other: bool) -> None:
        """Update the neighbours with a tile of scores; a strip is skipped when it has none above its query's last."""
        queries, new_scores = _newcomers(strips, self.scores[rows, -1], self.scores.shape[1])
        if not len(queries):
            return
        queries = queries + rows.start
        merged = torch.cat([self.scores[queries], new_scores], dim=1)
        flags = torch.cat([self.other[queries], torch.full_like(new_scores, other, dtype=torch.bool)], dim=1)
        best = merged.topk(self.scores.shape[1], dim=1)
        self.scores[queries] = best.values
        self.other[queries] = flags.gather(1, best.indices)

    def num_other(self, own: Tensor, crossed: Tensor, tolerance: float, first: int | None = None) -> Tensor:
        """Expected number of the other modality's rows among the k nearest, ties at the k-th place in random order.

        Args:
            own: [pair, dim] rows of this modality.
            crossed: [pair, dim] rows of the other modality.
            tolerance: cosines that differ by less are tied.
            first: k, at most the number of stored neighbours; by default that number.
        """
        slack = self.scale * tolerance
        num_neighbours = self.num_neighbours if first is None else min(first, self.num_neighbours)
        last = self.scores[:, num_neighbours - 1, None]
        result = _expected(self.scores, self.other, last, slack, num_neighbours)
        # a tie that may continue beyond the stored scores is counted again over the whole gallery
        open_ended = (self.scores[:, -1] >= last[:, 0] - slack).nonzero().flatten()
        is_other = torch.arange(2 * len(own), device=own.device) >= len(own)
        for part in blocks(len(open_ended), ROWS_AT_ONCE):
            queries = open_ended[part]
            scaled = self.scale * own[queries]
            scores = torch.cat([scaled @ own.T, scaled @ crossed.T], dim=1)
            scores[torch.arange(len(queries), device=own.device), queries] = -math.inf
            # The k-th place of these products: those of another shape may lie a rounding step beyond the tolerance.
            level = scores.topk(num_neighbours, dim=1).values[:, -1, None]
            result[queries] = _expected(scores, is_other, level, slack, num_neighbours)
        return result


def _newcomers(strips: ScoreStrips, level: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Queries with scores above their level, ascending, and those scores, [query, at most width], -inf beside them."""
    queries, values = strips.reaching(strips.above(level))
    if strips.dim == 0:  # else they are in order
        queries, order = queries.sort()
        values = values[order]
    hit, column = (values > level[queries, None]).nonzero(as_tuple=True)
    touched, slot, counts = torch.unique_consecutive(queries[hit], return_inverse=True, return_counts=True)
    if not len(touched):
        return touched, values
    place = torch.arange(len(hit), device=hit.device) - (counts.cumsum(dim=0) - counts)[slot]
    new_scores = values.new_full((len(touched), int(counts.max())), -math.inf)
    new_scores[slot, place] = values[hit, column]
    return touched, new_scores.topk(min(width, new_scores.shape[1]), dim=1).values if new_scores.shape[
        1
    ] > width else new_scores


def _expected(scores: Tensor, other: Tensor, last: Tensor, tolerance: float, num_neighbours: int) -> Tensor:
    above = scores > last + tolerance
    tied = (scores >= last - tolerance) & ~above
    left = num_neighbours - above.sum(dim=1).double()
    share = (tied & other).sum(dim=1).double() / tied.sum(dim=1)
    return (above & other).sum(dim=1) + left * share
