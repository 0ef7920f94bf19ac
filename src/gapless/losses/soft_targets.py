"""Soft targets for rows whose findings are alike: who shares labels is a match in part (as MedCLIP trains).

Two chests with the same finding are no negatives of each other. The target of row i is a softmax over the labels that
it shares with all rows, in place of its own pair alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from gapless.core.errors import UsageError
from gapless.core.geometry import at_one_precision, is_transformed
from gapless.core.shapes import Embeddings, Scalar
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.gathered import chosen_symmetric_info_nce
from gapless.losses.engine.soft_target_tiles import target_excess
from gapless.losses.engine.tiled import tiled_symmetric_info_nce
from gapless.losses.gap_closing import is_small
from gapless.losses.learned_temperature import MAX_LOGIT_SCALE
from gapless.losses.pairs import ANCHOR, Pair, Pairs, checked_pairs, checked_weights
from gapless.losses.pairwise import MaskedPairwiseTerms, PairwiseLoss, PairwiseTerms
from gapless.losses.present import Chosen, GivenPositives, PresentBatch


@dataclass(frozen=True)
class SoftTargetSettings:
    """The settings of the loss with soft targets.

    Args:
        label_column: the column of the manifest whose labels say what is alike; a cell is one label or a list of them.
            (Heads on frozen embeddings take the labels of `close`.)
        target_temperature: of the targets, above 0. The paper has none, which is 1: a row that shares a label then
            weighs only e times as much as any other, and nearly the whole batch is the target. Towards 0 the rows that
            share most labels with a row, itself among them, are its only targets.
        temperature: start value of the learned temperature of the similarities.
        pairs: the pairs of modalities that are compared: anchor (each with the anchor), all (each with each), or a list
            of two names each.
        modality_weights: weight of a modality ("ecg") or of a pair ("ecg+text"), 1 by default; only ratios matter.
    """

    label_column: str = ""
    target_temperature: float = 0.1
    temperature: float = 0.07
    pairs: Pairs = ANCHOR
    modality_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", checked_pairs(self.pairs))
        checked_weights(self.modality_weights)
        if not 0 < self.target_temperature < math.inf:
            raise UsageError(f"target_temperature must be above 0, got {self.target_temperature}")
        if not 1 / MAX_LOGIT_SCALE <= self.temperature < math.inf:
            raise UsageError(f"temperature must be at least 0.01, got {self.temperature}")


def soft_targets(labels: Tensor, target_temperature: float) -> Tensor:
    """[row, row] the target of each row over all rows: the softmax of `labels labels^T / target_temperature`.

    A row without a label has itself alone as its target.

    Args:
        labels: [row, label], 0 or 1 for each label, or weights.
        target_temperature: above 0.

    >>> soft_targets(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 0.1).round(decimals=2)[0]
    tensor([0.5000, 0.5000, 0.0000])
    """
    targets = torch.softmax(labels @ labels.T / target_temperature, dim=1)
    alone = ~labels.any(dim=1)
    return torch.where(alone[:, None], torch.eye(len(labels), dtype=labels.dtype, device=labels.device), targets)


def soft_target_loss(
    a: Embeddings, b: Embeddings, logit_scale: Scalar | float, labels: Tensor, target_temperature: float
) -> Scalar:
    """The cross entropy of the similarities against `soft_targets`, the mean of both directions.

    `-1/2N sum_ij T_ij (log softmax_j(s a_i.b_j) + log softmax_j(s b_i.a_j))`

    Args:
        a: [pair, dim], unit-norm.
        b: [pair, dim], unit-norm; row i belongs to row i of `a`.
        logit_scale: 1 / temperature.
        labels: [pair, label].
        target_temperature: see `soft_targets`.

    Returns:
        At least the mean entropy of the targets; lower is better. All N x N pairs are held at once.

    Reference: Wang et al., arXiv 2210.10163, equations 3 to 6, which have no temperature of the targets.
    """
    a, b = at_one_precision(a, b)
    targets = soft_targets(labels.to(a), target_temperature)
    logits = logit_scale * (a @ b.T)
    return -(targets * (log_softmax(logits, dim=1) + log_softmax(logits.T, dim=1))).sum() / (2 * len(a))


class SoftTargetLoss(PairwiseLoss):
    """`soft_target_loss` of each pair of modalities, its temperature learned.

    Args:
        settings: see there.
        anchor, gather: as in `PairwiseLoss`.

    Attributes:
        logit_scale: log(1 / temperature), fp32.
    """

    def __init__(self, settings: SoftTargetSettings, anchor: str, gather: bool = True) -> None:
        super().__init__(anchor, settings.pairs, settings.modality_weights, gather)
        self.target_temperature = settings.target_temperature
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature), dtype=torch.float32))

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature at or above 0.01."""
        self.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))

    def forward(
        self,
        embeddings: Mapping[str, Tensor],
        *,
        present: Mapping[str, Tensor] | None = None,
        positives: GivenPositives = None,
        labels: Tensor | None = None,
    ) -> PairwiseTerms | MaskedPairwiseTerms:
        """The terms of one batch; `embeddings` and `present` as in `GapClosingLoss.forward`.

        Args:
            positives: not used: the labels say what is alike.
            labels: [pair, label], 0 or 1 for each label; a row of zeros has no label.

        Raises:
            UsageError: no labels. ValueError: labels that are not one row a pair.
        """
        num_rows = len(next(iter(embeddings.values())))
        if labels is None:
            raise UsageError("the loss with soft targets compares the labels of rows, and was given none")
        if labels.ndim != 2 or len(labels) != num_rows or not labels.is_floating_point():
            raise ValueError(
                f"labels: expected a [{num_rows}, label] matrix of floating-point numbers, got {tuple(labels.shape)} "
                f"of {labels.dtype}"
            )
        given = labels.detach()
        return self.terms(embeddings, present, None, lambda batch, pair, chosen: self._of(batch, pair, chosen, given))

    def _of(self, batch: PresentBatch, pair: Pair, chosen: Chosen, labels: Tensor) -> Tensor:
        rows, columns = self.two_modalities(batch, pair)
        rows, columns, ranks = rows[chosen.own], columns[chosen.everyone], batch.ranks
        scale, temperature = self.logit_scale.exp(), self.target_temperature
        if ranks is None:
            labels = labels[chosen.own]
            if is_small(rows) or is_transformed(rows, columns, scale):
                return soft_target_loss(rows, columns, scale, labels, temperature)
            excess = target_excess(
                rows,
                columns,
                labels / temperature,
                labels,
                chosen.of_this_rank,
                formula=partial(_plain_excess, labels=labels, target_temperature=temperature),
            )
            return tiled_symmetric_info_nce(rows, columns, scale) + scale * excess
        info_nce = chosen_symmetric_info_nce(rows, columns, scale, None, chosen.of_this_rank, ranks)
        excess = target_excess(
            rows,
            columns,
            labels[chosen.own] / temperature,
            ranks.gather(labels)[chosen.everyone],
            chosen.of_this_rank,
            merge_logsumexp=ranks.merge_logsumexp,
            add_up=ranks.add_up,
            gradient_factor=ranks.num_ranks,
        )
        return info_nce + scale * excess


def _plain_excess(a: Tensor, b: Tensor, labels: Tensor, target_temperature: float) -> Tensor:
    """`target_excess` by operations of torch alone, for derivatives of its derivative."""
    targets = soft_targets(labels.to(a), target_temperature)
    cosines = a @ b.T
    return (cosines.trace() - (cosines * (targets + targets.T) / 2).sum()) / len(a)


METHODS.add(
    "soft-targets",
    Method(
        "soft-targets",
        "contrast with soft targets: rows that share labels are matches in part; needs labels",
        SoftTargetSettings(),
        SoftTargetLoss,
        "Wang et al., arXiv 2210.10163, equations 3 to 6",
    ),
)
