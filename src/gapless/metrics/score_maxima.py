"""Splits the gallery axis of scores into strips of 16 with their maxima, to skip strips below a query's threshold."""

import math
from functools import cached_property

from torch import Tensor
from torch.nn.functional import pad

STRIP = 16  # scores that share one maximum


class ScoreStrips:
    """Scores in strips with their maxima, each computed on first use.

    Args:
        scores: [query, gallery] when `dim` is 1, [gallery, query] when it is 0.
        dim: the gallery axis.

    >>> import torch
    >>> ScoreStrips(torch.arange(32.0)[None], dim=1).peaks
    tensor([[30., 31.]])
    """

    def __init__(self, scores: Tensor, dim: int) -> None:
        self.scores = scores
        self.dim = dim

    @cached_property
    def values(self) -> Tensor:
        """The scores with the gallery axis split, [query, STRIP, place] or [place, STRIP, query], padded with -inf."""
        scores, dim = self.scores, self.dim
        missing = -scores.shape[dim] % STRIP
        if missing:
            scores = pad(scores, (0, missing) if dim == 1 else (0, 0, 0, missing), value=-math.inf)
        strips: Tensor = scores.unflatten(dim, (STRIP, -1) if dim == 1 else (-1, STRIP))
        return strips

    @cached_property
    def peaks(self) -> Tensor:
        """The maximum of each strip, [query, place] or [place, query]."""
        return self.values.amax(dim=1)

    def above(self, level: Tensor) -> Tensor:
        """Whether each strip holds a score above its query's level; the shape of `peaks`."""
        return self.peaks > (level[:, None] if self.dim == 1 else level)

    def reaching(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queries of the chosen strips, the strips' places along the gallery, and their scores, [chosen, STRIP]."""
        hits = chosen.nonzero()
        return hits[:, 1 - self.dim], hits[:, self.dim], self.values[hits[:, 0], :, hits[:, 1]]

    def position(self, place: Tensor, offset: Tensor) -> Tensor:
        """Where in the gallery the score stands that has this offset in the strip at this place."""
        return offset * self.peaks.shape[1] + place if self.dim == 1 else place * STRIP + offset
