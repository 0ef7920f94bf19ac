"""A tile of scores cut into strips of the gallery, each with its maximum: most hold nothing that a query asks for."""

import math
from functools import cached_property

from torch import Tensor
from torch.nn.functional import pad

STRIP = 16  # scores that share one maximum


class Strips:
    """Scores, [query, gallery] when dim is 1 and [gallery, query] when it is 0; maxima are taken when asked for."""

    def __init__(self, scores: Tensor, dim: int) -> None:
        self.scores = scores
        self.dim = dim

    @cached_property
    def values(self) -> Tensor:
        """The gallery axis cut into strips, [query, STRIP, place] or [place, STRIP, query], filled up with -inf."""
        scores, dim = self.scores, self.dim
        missing = -scores.shape[dim] % STRIP
        if missing:
            scores = pad(scores, (0, missing) if dim == 1 else (0, 0, 0, missing), value=-math.inf)
        strips: Tensor = scores.unflatten(dim, (STRIP, -1) if dim == 1 else (-1, STRIP))
        return strips

    @cached_property
    def peaks(self) -> Tensor:
        """The maxima, [query, place] or [place, query]."""
        return self.values.amax(dim=1)

    def above(self, level: Tensor) -> Tensor:
        """Which strips hold a score above their query's level, as `peaks`."""
        return self.peaks > (level[:, None] if self.dim == 1 else level)

    def reaching(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The queries of the chosen strips, and the scores of those strips, [chosen, STRIP]."""
        hits = chosen.nonzero()
        return hits[:, 1 - self.dim], self.values[hits[:, 0], :, hits[:, 1]]
