"""What published losses share: the contrastive term of each modality with the anchor, to which they add terms.

`AnchoredLoss` compares the modalities pair by pair, so that rows may lack some of them. A loss of this kind gives the
terms of a batch that is checked and opened.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gapless.losses.base import Terms
from gapless.losses.batch import OpenBatch, open_batch
from gapless.losses.engine.gathered import Ranks
from gapless.losses.gap_closing import is_small
from gapless.losses.learned_temperature import WithTemperature
from gapless.losses.masked import compared_rows, masked_alignment, masked_contrastive, weighted_mean
from gapless.losses.pairs import ANCHOR, Pair, pairs_of
from gapless.losses.present import Chosen, GivenPositives, PresentBatch


@dataclass(frozen=True)
class ContrastiveSettings:
    """The settings that losses with a contrastive term share.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
    """

    temperature: float = 0.07
    learn_temperature: bool = True
    mask_duplicates: bool = False


class PairOfRows:
    """Two modalities of a batch on the rows that have both.

    Attributes:
        own: [n of this rank, dim] of either modality; may have no row.
        positives: [n] integers of all ranks, or None.
        count: n, of all ranks.
        of_this_rank: where this rank's rows are among those of all ranks.
        ranks: who shares the batch; None for one process.
    """

    def __init__(self, batch: PresentBatch, pair: Pair, rows: Chosen) -> None:
        self._batch, self._pair, self._rows = batch, pair, rows
        self.own = (batch.rows[pair[0]][rows.own], batch.rows[pair[1]][rows.own])
        self.positives = batch.positives_of_pair(pair, rows)
        self.count, self.of_this_rank, self.ranks = len(rows.everyone), rows.of_this_rank, batch.ranks

    def everyone(self, which: int) -> Tensor:
        """[n, dim] rows of all ranks of the first (0) or the second (1) modality."""
        if self.ranks is None:
            return self.own[which]
        return self._batch.of_all_ranks(self._pair[which])[self._rows.everyone]

    def total(self, x: Tensor) -> Tensor:
        """The sum over the ranks of what each computes of its own rows."""
        return x if self.ranks is None else self.ranks.total(x)


class ComparedBatch:
    """A batch whose modalities are compared with the anchor, each on the rows that have both."""

    def __init__(self, opened: OpenBatch, anchor: str, log_scale: Tensor) -> None:
        self.batch = PresentBatch(opened.embeddings, opened.masks, opened.positives, opened.ranks)
        self.log_scale = log_scale
        self.chosen = {pair: self.batch.with_both(pair) for pair in pairs_of(ANCHOR, list(opened.embeddings), anchor)}

    def contrastive(self) -> Tensor:
        """`contrastive.symmetric_info_nce`, the mean over the pairs."""
        return masked_contrastive(self.batch, self.chosen, {}, self.log_scale, is_small)

    def alignment(self) -> Tensor:
        """`gap_closing.align_true_pairs`, the mean over the pairs."""
        return masked_alignment(self.batch, self.chosen, {}, self.log_scale)

    def mean(self, of_pair: Callable[[PairOfRows], Tensor]) -> Tensor:
        """The mean over the pairs by their number of rows; a pair of fewer than two rows is left out."""

        def of_chosen(pair: Pair, rows: Chosen) -> Tensor:
            return of_pair(PairOfRows(self.batch, pair, rows))

        return weighted_mean(of_chosen, self.chosen, {}, self.batch.nothing(self.log_scale))

    def with_counts(self, terms: Terms) -> Terms:
        """The terms, and what was compared: `skipped_pairs` and `compared_rows`, as in `MaskedGapLossTerms`."""
        counts = [len(rows.everyone) for rows in self.chosen.values()]
        skipped, compared = compared_rows(counts, terms.total)
        fields = {**terms._asdict(), "skipped_pairs": skipped, "compared_rows": compared}
        return cast(Terms, namedtuple(f"Masked{type(terms).__name__}", fields)(**fields))

    def nothing(self) -> Tensor:
        """A zero that a backward pass can start from."""
        return self.batch.nothing(self.log_scale)


class ContrastiveLoss(WithTemperature):
    """The settings and the temperature of a loss; `gather` as in `GapClosingLoss`."""

    def __init__(self, settings: ContrastiveSettings, anchor: str, gather: bool = True) -> None:
        super().__init__(settings.temperature, settings.learn_temperature)
        self.settings: Any = settings
        self.anchor = anchor
        self.gather = gather

    def scale(self, ranks: Ranks | None) -> Tensor:
        """1 / temperature, for terms that a rank computes of its own rows (see `Ranks.shared`)."""
        return (self.logit_scale if ranks is None else ranks.shared(self.logit_scale)).exp()

    def extra_repr(self) -> str:
        return f"anchor={self.anchor!r}, {self.settings}"


class AnchoredLoss(ContrastiveLoss):
    """A loss that compares each modality with the anchor; a subclass gives the terms of a batch.

    Rows may lack modalities: each pair is compared on the rows that have both, and pairs are combined by their number
    of rows. With `torch.distributed` running, the batch is that of all ranks together.
    """

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        positives: GivenPositives = None,
    ) -> Any:
        """The terms of one batch; arguments and errors as in `GapClosingLoss.forward`."""
        opened = open_batch(embeddings, self.anchor, positives, present, self.gather)
        with torch.autocast(next(iter(embeddings.values())).device.type, enabled=False):
            batch = ComparedBatch(opened, self.anchor, self.logit_scale)
            terms = self.terms(batch)
        return terms if present is None else batch.with_counts(terms)

    def terms(self, batch: ComparedBatch) -> Terms:
        """The terms of a batch that is checked."""
        raise NotImplementedError


def weighted(weight: float, term_of: Callable[[], Tensor]) -> Tensor:
    """A term, computed without a gradient where its weight is 0: it is then reported only."""
    with nullcontext() if weight != 0 else torch.no_grad():
        return term_of()


def total_of(first: Tensor, *weighted_terms: tuple[float, Tensor]) -> Tensor:
    """The first term plus the others times their weights; those of weight 0 are left out."""
    total = first
    for weight, term in weighted_terms:
        if weight != 0:
            total = total + weight * term
    return total
