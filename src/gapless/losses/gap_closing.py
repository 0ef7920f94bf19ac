"""The loss of "Closing the gap in multimodal medical representation alignment": three terms, one module.

loss = GapClosingLoss(anchor="text")
terms = loss({"image": z, "text": w})       # unit-norm [pair, dim]
terms.total.backward()
...                                         # optimizer.step()
loss.clamp_logit_scale()

Rows may lack modalities: `loss(embeddings, present=masks)` compares each pair of modalities on the rows that have both.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.geometry import (
    at_least_fp32,
    log_mean_gaussian_kernel,
    pair_centroids,
    pairwise_squared_distance,
)
from gapless.core.shapes import Embeddings, Positives, Scalar
from gapless.losses.batch import open_batch
from gapless.losses.contrastive import symmetric_info_nce
from gapless.losses.engine.gathered import (
    Ranks,
    gathered_centroid_uniformity,
    gathered_symmetric_info_nce,
)
from gapless.losses.engine.tiled import tiled_log_mean_gaussian_kernel, tiled_symmetric_info_nce
from gapless.losses.learned_temperature import WithTemperature
from gapless.losses.masked import compared_rows, masked_alignment, masked_contrastive, masked_uniformity
from gapless.losses.pairs import ANCHOR, Pair, Pairs, are_equal, checked_pairs, checked_weights, pairs_of
from gapless.losses.present import GivenPositives, PresentBatch
from gapless.losses.schedules import Schedule, weight_at

# Batches up to this size take the plain functions: as fast there (docs/performance.md), and fewer kernels to launch.
PLAIN_ON_CPU = 256
PLAIN_ON_ACCELERATOR = 4096


class GapLossTerms(NamedTuple):
    """The weighted total, and the terms without their weights."""

    total: Tensor
    contrastive: Tensor
    alignment: Tensor
    uniformity: Tensor


class MaskedGapLossTerms(NamedTuple):
    """The terms of a batch that was given with `present`, and what was compared.

    Args:
        total, contrastive, alignment, uniformity: as in `GapLossTerms`.
        skipped_pairs: how many pairs of modalities were left out, because fewer than two rows have both.
        compared_rows: the rows of all other pairs, added up.
    """

    total: Tensor
    contrastive: Tensor
    alignment: Tensor
    uniformity: Tensor
    skipped_pairs: Tensor
    compared_rows: Tensor


def align_true_pairs(a: Embeddings, b: Embeddings) -> Scalar:
    """L_ATP of two modalities: the mean squared distance of true pairs.

    `1/N sum_i ||a_i - b_i||^2`

    Args:
        a: [pair, dim], unit-norm.
        b: [pair, dim], unit-norm; row i is the partner of row i of `a`.

    Returns:
        In [0, 4]; 0 when every pair coincides.

    Reference: Grassucci et al., arXiv 2602.20046.
    """
    return pairwise_squared_distance(at_least_fp32(a), at_least_fp32(b)).mean()


def centroid_uniformity(
    embeddings: Sequence[Embeddings], positives: Positives | None = None, normalise_centroids: bool = True
) -> Scalar:
    """L_CU: how evenly the centroids of the pairs spread over the sphere.

    `log mean_{i != j} exp(-2 ||mu_i - mu_j||^2)`, mu_i the mean of pair i over the modalities.

    Args:
        embeddings: one [pair, dim] unit-norm matrix per modality.
        positives: [pair] integers; pairs of centroids that share one are left out.
        normalise_centroids: True is the authors' published code, False the paper's text. The text also writes
            `1/N sum_i sum_{j != i}` instead of the mean over pairs: that is this value plus log(N - 1), a constant
            with no gradient.

    Returns:
        In [-8, 0]; lower is more uniform, 0 when all centroids coincide.

    Reference: Grassucci et al., arXiv 2602.20046; Wang and Isola, arXiv 2005.10242.
    """
    return log_mean_gaussian_kernel(
        pair_centroids([at_least_fp32(rows) for rows in embeddings], normalise=normalise_centroids), positives
    )


class GapClosingLoss(WithTemperature):
    """contrastive + alignment_weight * L_ATP + uniformity_weight * L_CU over any number of named modalities.

    Contrastive (`symmetric_info_nce`) and L_ATP (`align_true_pairs`) are means over the pairs (modality, anchor);
    L_CU (`centroid_uniformity`) is over all modalities together.

    Rows may lack modalities (`present`). Each pair of modalities is then compared on the rows that have both, and pairs
    are combined by their number of rows times their weight; L_CU is over the rows with two modalities or more, whose
    centroid is the mean of what they have. With every row complete and equal weights this is the loss above, to the
    bit. Which rows have a modality is seldom random (who gets an ECG is ill at heart): a model can learn presence
    itself, which no loss can tell from content.

    Args:
        anchor: the modality that every other one is compared with.
        temperature: the initial, or fixed, temperature.
        learn_temperature: whether `logit_scale` is a parameter; call `clamp_logit_scale` after each optimizer step
            and give it no weight decay.
        alignment_weight: a number or a `Schedule`; 0 leaves the term out of the total and of the gradient.
        uniformity_weight: likewise.
        normalise_centroids: see `centroid_uniformity`.
        pairs: the pairs of modalities that are compared: `"anchor"` is each modality with the anchor, `"all"` each with
            each, or a list of two names each.
        modality_weights: the weight of a modality ("ecg") or of a pair ("ecg+text"); a pair that is not named has the
            product of the weights of its modalities, 1 by default. Only their ratios matter. L_CU has no weights.
        alignment_modality_weights: likewise for L_ATP alone; None is `modality_weights`.
        gather: with `torch.distributed` running, whether the batch is that of all ranks together (exact gradients, see
            `losses.engine.gathered`) or of each rank alone.

    Attributes:
        logit_scale: log(1 / temperature) in fp32, as in open_clip.
    """

    def __init__(
        self,
        anchor: str = "text",
        temperature: float = 0.07,
        learn_temperature: bool = True,
        alignment_weight: float | Schedule = 1.0,
        uniformity_weight: float | Schedule = 1.0,
        normalise_centroids: bool = True,
        gather: bool = True,
        pairs: Pairs = ANCHOR,
        modality_weights: Mapping[str, float] | None = None,
        alignment_modality_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(temperature, learn_temperature)
        self.anchor = anchor
        self.alignment_weight = alignment_weight
        self.uniformity_weight = uniformity_weight
        self.normalise_centroids = normalise_centroids
        self.gather = gather
        self.pairs = checked_pairs(pairs)
        self.modality_weights = checked_weights(modality_weights)
        self.alignment_modality_weights = (
            self.modality_weights
            if alignment_modality_weights is None
            else checked_weights(alignment_modality_weights, "alignment_modality_weights")
        )
        self._alignment_share = self._uniformity_share = 1.0
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """Set the share of the training that is done, from 0 to 1, which decides the scheduled weights."""
        self.progress = progress
        self._alignment_weight = self._alignment_share * weight_at(self.alignment_weight, progress)
        self._uniformity_weight = self._uniformity_share * weight_at(self.uniformity_weight, progress)

    def closing_limit(self, progress: float) -> float:
        """The weight of alignment that its schedule has at `progress`, the most that a controller may give it."""
        return weight_at(self.alignment_weight, progress)

    def set_closing_share(self, share: float, keep_uniformity: bool = False) -> None:
        """Set the part of both scheduled weights that is in force, in [0, 1]; 1 is the schedule itself.

        Args:
            keep_uniformity: the share is that of alignment alone, and uniformity has its scheduled weight.
        """
        self._alignment_share, self._uniformity_share = share, 1.0 if keep_uniformity else share
        self.set_progress(self.progress)

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        positives: GivenPositives = None,
        groups: Tensor | None = None,
    ) -> GapLossTerms | MaskedGapLossTerms:
        """The terms of one batch.

        Args:
            embeddings: at least two modalities by name, each a unit-norm [pair, dim] matrix, rows aligned. Precisions
                may differ: the terms are in float64 where one modality is, otherwise in fp32. Absent rows may hold
                anything.
            present: modality -> [pair] bool, whether a row has it; a modality that is not named is in every row. None:
                every row has everything. Of several ranks either all give masks or none does. Masks are read on the
                host: best kept on the CPU.
            positives: [pair] integers; rows that share one (same caption, same image) are positives of each other and
                are not pushed apart. None: no row has another positive than its own. Or modality -> such integers:
                rows that share one are positives in the pairs of that modality, and what its two modalities say is
                joined, over any chain of equal rows; L_CU takes those of the anchor.
            groups: the former name of `positives`; it still works, and warns.

        Returns:
            `GapLossTerms`; with `present`, `MaskedGapLossTerms`.

        Raises:
            ValueError: one modality, no anchor, shapes or devices that differ, no floating-point tensors, masks that
                are not one bool a row, positives that are not one integer a row, fewer than 2 rows; on the CPU also
                rows that are not finite or far from norm 1 (rows of zeros pass), and rows that are all positives of
                each other. (On an accelerator those three would wait for the device.)
        """
        if groups is not None:
            positives = _renamed(positives, groups)
        embeddings, positives, masks, ranks = open_batch(
            embeddings, self.anchor if self.pairs == ANCHOR else None, positives, present, self.gather
        )
        first = next(iter(embeddings.values()))
        pairs = pairs_of(self.pairs, list(embeddings), self.anchor)
        with torch.autocast(first.device.type, enabled=False):
            if masks is None and not isinstance(positives, Mapping) and self._is_plain(pairs, embeddings):
                terms = self._terms(
                    lambda: self._contrastive(embeddings, positives, ranks),
                    lambda: self._alignment(embeddings, ranks),
                    lambda: self._uniformity(embeddings, positives, ranks),
                )
                num_rows = len(first) * (ranks.num_ranks if ranks else 1)
                counts = dict.fromkeys(pairs, num_rows)
            else:
                batch = PresentBatch(embeddings, masks, positives, ranks)
                chosen = {pair: batch.with_both(pair) for pair in pairs}
                counts = {pair: len(rows.everyone) for pair, rows in chosen.items()}
                alignment_weights = self.alignment_modality_weights
                terms = self._terms(
                    lambda: masked_contrastive(batch, chosen, self.modality_weights, self.logit_scale, is_small),
                    lambda: masked_alignment(batch, chosen, alignment_weights, self.logit_scale),
                    lambda: masked_uniformity(batch, self.anchor, self.normalise_centroids, self.logit_scale, is_small),
                )
        if present is None:
            return terms
        return MaskedGapLossTerms(*terms, *compared_rows(counts.values(), terms.total))

    def _is_plain(self, pairs: Sequence[Pair], embeddings: Mapping[str, Tensor]) -> bool:
        """Whether the settings are those of the plain mean over the pairs with the anchor."""
        is_anchor = self.anchor in embeddings and {*pairs} == {*pairs_of(ANCHOR, list(embeddings), self.anchor)}
        return is_anchor and are_equal(pairs, self.modality_weights, self.alignment_modality_weights)

    def _terms(
        self,
        contrastive_of: Callable[[], Tensor],
        alignment_of: Callable[[], Tensor],
        uniformity_of: Callable[[], Tensor],
    ) -> GapLossTerms:
        """The terms by their functions; a term of weight 0 is reported without a gradient, for its forward pass."""
        contrastive = contrastive_of()
        with nullcontext() if self._alignment_weight != 0 else torch.no_grad():
            alignment = alignment_of()
        with nullcontext() if self._uniformity_weight != 0 else torch.no_grad():
            uniformity = uniformity_of()
        total = contrastive
        if self._alignment_weight != 0:
            total = total + self._alignment_weight * alignment
        if self._uniformity_weight != 0:
            total = total + self._uniformity_weight * uniformity
        return GapLossTerms(total, contrastive, alignment, uniformity)

    def _others(self, embeddings: Mapping[str, Tensor]) -> list[Tensor]:
        return [rows for name, rows in embeddings.items() if name != self.anchor]

    def _contrastive(self, embeddings: Mapping[str, Tensor], positives: Tensor | None, ranks: Ranks | None) -> Tensor:
        anchor, others, scale = embeddings[self.anchor], self._others(embeddings), self.logit_scale.exp()
        if ranks is not None:
            return mean_of(gathered_symmetric_info_nce(others, anchor, scale, positives, ranks))
        info_nce = symmetric_info_nce if is_small(anchor) else tiled_symmetric_info_nce
        return mean_of([info_nce(rows, anchor, scale, positives) for rows in others])

    def _alignment(self, embeddings: Mapping[str, Tensor], ranks: Ranks | None) -> Tensor:
        alignment = mean_of([align_true_pairs(rows, embeddings[self.anchor]) for rows in self._others(embeddings)])
        return alignment if ranks is None else ranks.average(alignment)

    def _uniformity(self, embeddings: Mapping[str, Tensor], positives: Tensor | None, ranks: Ranks | None) -> Tensor:
        modalities = list(embeddings.values())
        if ranks is not None:
            return gathered_centroid_uniformity(modalities, positives, self.normalise_centroids, ranks)
        if is_small(modalities[0]):
            return centroid_uniformity(modalities, positives, self.normalise_centroids)
        centroids = pair_centroids([at_least_fp32(rows) for rows in modalities], self.normalise_centroids)
        return tiled_log_mean_gaussian_kernel(centroids, positives)

    def extra_repr(self) -> str:
        return (
            f"anchor={self.anchor!r}, alignment_weight={self.alignment_weight}, "
            f"uniformity_weight={self.uniformity_weight}, normalise_centroids={self.normalise_centroids}, "
            f"pairs={self.pairs!r}, modality_weights={self.modality_weights}"
        )


def mean_of(terms: Sequence[Tensor]) -> Tensor:
    """The mean of scalar tensors."""
    return torch.stack(list(terms)).mean()


def _renamed(positives: GivenPositives, groups: Tensor) -> Tensor:
    if positives is not None:
        raise TypeError("the loss was given positives= and groups=, which is the former name of positives=")
    warnings.warn(
        "groups= of the loss is called positives= now: rows that count as the same. "
        "What must not be split (patients, articles) is no business of the loss; it goes to measure(groups=...)",
        FutureWarning,
        stacklevel=5,  # past the two calls of nn.Module
    )
    return groups


def is_small(rows: Tensor) -> bool:
    """Whether a batch takes the plain formulas: so few rows are not faster in tiles."""
    return len(rows) <= (PLAIN_ON_CPU if rows.device.type == "cpu" else PLAIN_ON_ACCELERATOR)
