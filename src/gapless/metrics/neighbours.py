"""The nearest neighbours of every row in the gallery of both modalities together, kept while tiles stream by."""

import math

import torch
from torch import Tensor

from gapless.geometry import blocks

SPARE = 6  # kept beyond k, so that nearly every tie at the k-th place is seen whole
ROWS_AT_ONCE = 256


class Nearest:
    """The highest scores of each row so far, and which of them belong to the other modality."""

    def __init__(self, rows: Tensor, num_neighbours: int) -> None:
        self.num_neighbours = min(num_neighbours, 2 * len(rows) - 1)
        shape = (len(rows), self.num_neighbours + SPARE)
        self.scores = torch.full(shape, -math.inf, dtype=rows.dtype, device=rows.device)
        self.other = torch.zeros(shape, dtype=torch.bool, device=rows.device)

    def add(self, rows: slice, scores: Tensor, other: bool) -> None:
        """A tile of [query, gallery] scores; only queries whose best newcomer beats their last entry are touched."""
        newcomers = (scores.amax(dim=1) > self.scores[rows, -1]).nonzero().flatten()
        if not len(newcomers):
            return
        width = self.scores.shape[1]
        found = scores[newcomers].topk(min(width, scores.shape[1]), dim=1).values
        queries = newcomers + rows.start
        merged = torch.cat([self.scores[queries], found], dim=1)
        flags = torch.cat([self.other[queries], torch.full_like(found, other, dtype=torch.bool)], dim=1)
        best = merged.topk(width, dim=1)
        self.scores[queries] = best.values
        self.other[queries] = flags.gather(1, best.indices)

    def num_other(self, own: Tensor, crossed: Tensor, tolerance: float) -> Tensor:
        """Expected number of the other modality's rows among the k nearest, ties at the k-th place in random order.

        Args:
            own: [pair, dim] rows of this modality, scaled as in the tiles.
            crossed: the other modality's.
            tolerance: scores that differ by less are one.
        """
        last = self.scores[:, self.num_neighbours - 1, None]
        result = _expected(self.scores, self.other, last, tolerance, self.num_neighbours)
        # a tie that may go on beyond what was kept is counted again, over the whole gallery
        open_ended = (self.scores[:, -1] >= last[:, 0] - tolerance).nonzero().flatten()
        gallery = torch.cat([own, crossed]) if len(open_ended) else own
        flags = torch.arange(len(gallery), device=own.device) >= len(own)
        for part in blocks(len(open_ended), ROWS_AT_ONCE):
            queries = open_ended[part]
            scores = own[queries] @ gallery.T
            scores[torch.arange(len(queries), device=own.device), queries] = -math.inf
            result[queries] = _expected(scores, flags, last[queries], tolerance, self.num_neighbours)
        return result


def _expected(scores: Tensor, other: Tensor, last: Tensor, tolerance: float, num_neighbours: int) -> Tensor:
    above = scores > last + tolerance
    tied = (scores >= last - tolerance) & ~above
    left = num_neighbours - above.sum(dim=1).double()
    share = (tied & other).sum(dim=1) / tied.sum(dim=1)
    return (above & other).sum(dim=1) + left * share.double()
