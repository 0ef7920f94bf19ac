"""The base of losses that are a mean, over pairs of modalities, of one function of two matrices.

A subclass is the function (`of_pair`). Rows that lack modalities, weights of pairs, positives, several ranks and the
precision of parameters are the same for all of them, and are here.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.losses.batch import open_batch
from gapless.losses.engine.gathered import Ranks
from gapless.losses.masked import compared_rows, weighted_mean
from gapless.losses.pairs import ANCHOR, Pair, Pairs, checked_pairs, checked_weights, pairs_of
from gapless.losses.precision import KeptInFp32
from gapless.losses.present import Chosen, GivenPositives, PresentBatch


class PairwiseTerms(NamedTuple):
    """The loss; `contrastive` is the same number, under the name by which the curves of all methods compare."""

    total: Tensor
    contrastive: Tensor


class MaskedPairwiseTerms(NamedTuple):
    """The loss of a batch that was given with `present`, and what was compared, see `MaskedGapLossTerms`."""

    total: Tensor
    contrastive: Tensor
    skipped_pairs: Tensor
    compared_rows: Tensor


class PairwiseLoss(KeptInFp32):
    """The mean over pairs of modalities of a loss of two matrices, by their number of rows times their weight.

    Args:
        anchor: the modality that every other one is compared with.
        pairs: `"anchor"` is each modality with the anchor, `"all"` each with each, or a list of two names each.
        modality_weights: the weight of a modality ("ecg") or of a pair ("ecg+text"), 1 by default.
        gather: with `torch.distributed` running, whether the batch is that of all ranks together (exact gradients,
            see `losses.engine.gathered`) or of each rank alone.
    """

    def __init__(
        self,
        anchor: str,
        pairs: Pairs = ANCHOR,
        modality_weights: Mapping[str, float] | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.anchor = anchor
        self.pairs = checked_pairs(pairs)
        self.modality_weights = checked_weights(modality_weights)
        self.gather = gather

    def of_pair(
        self, rows: Tensor, columns: Tensor, positives: Tensor | None, own: slice, ranks: Ranks | None
    ) -> Tensor:
        """The loss of two modalities.

        Args:
            rows: [n of this rank, dim] of the first modality, present rows alone.
            columns: [n, dim] of the second one on all ranks, with the gradient of a gather.
            positives: [n] integers, equal where rows count as the same; None: no row has another than its own.
            own: where this rank's rows are among the columns.
            ranks: who shares the batch; None for one process.

        Returns:
            A scalar, the same on every rank, with the gradients that `losses.engine.gathered` describes.
        """
        raise NotImplementedError

    def two_modalities(self, batch: PresentBatch, pair: Pair) -> tuple[Tensor, Tensor]:
        """The rows of this rank in the first modality of a pair, and those of all ranks in the second."""
        return batch.rows[pair[0]], batch.of_all_ranks(pair[1])

    def own_parameters(self) -> Tensor:
        """A scalar that depends on every parameter of the loss, for batches of nothing to compare."""
        parameters = list(self.parameters())
        return torch.stack([parameter.sum() for parameter in parameters]).sum() if parameters else torch.zeros(())

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        positives: GivenPositives = None,
    ) -> PairwiseTerms | MaskedPairwiseTerms:
        """The terms of one batch; arguments and errors as in `GapClosingLoss.forward`."""
        return self.terms(embeddings, present, positives, self.of_chosen)

    def terms(
        self,
        embeddings: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None,
        positives: GivenPositives,
        of_chosen: Callable[[PresentBatch, Pair, Chosen], Tensor],
    ) -> PairwiseTerms | MaskedPairwiseTerms:
        """The terms of one batch, from the loss of the chosen rows of a pair."""
        rows, positives, masks, ranks = open_batch(
            embeddings, self.anchor if self.pairs == ANCHOR else None, positives, present, self.gather
        )
        first = next(iter(embeddings.values()))
        with torch.autocast(first.device.type, enabled=False):
            batch = PresentBatch(rows, masks, positives, ranks)
            chosen = {pair: batch.with_both(pair) for pair in pairs_of(self.pairs, list(rows), self.anchor)}
            nothing = batch.nothing(self.own_parameters().to(first.device))
            total = weighted_mean(
                lambda pair, those: of_chosen(batch, pair, those), chosen, self.modality_weights, nothing
            )
        if present is None:
            return PairwiseTerms(total, total)
        counts = [len(those.everyone) for those in chosen.values()]
        return MaskedPairwiseTerms(total, total, *compared_rows(counts, total))

    def of_chosen(self, batch: PresentBatch, pair: Pair, chosen: Chosen) -> Tensor:
        """The loss of a pair over the rows that have both of its modalities."""
        rows, columns = self.two_modalities(batch, pair)
        return self.of_pair(
            rows[chosen.own],
            columns[chosen.everyone],
            batch.positives_of_pair(pair, chosen),
            chosen.of_this_rank,
            batch.ranks,
        )
