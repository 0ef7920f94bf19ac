"""CUA and CUAXU: alignment of true pairs, and uniformity inside each modality and between the two (Fahim et al.)."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.geometry import UNIFORMITY_SCALE
from gapless.losses.anchored import (
    AnchoredLoss,
    ComparedBatch,
    ContrastiveSettings,
    PairOfRows,
    total_of,
    weighted,
)
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.cross_kernel import (
    gathered_log_mean_cross_kernel,
    log_mean_cross_kernel,
    tiled_log_mean_cross_kernel,
)
from gapless.losses.gap_closing import is_small
from gapless.losses.masked import uniformity_of
from gapless.losses.present import are_apart

PAPER = "Fahim et al., arXiv 2405.18570, the losses of section 5"


@dataclass(frozen=True)
class AlignUniformSettings(ContrastiveSettings):
    """The settings of CUA and CUAXU; the weights and the temperature are the paper's.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other, and not pushed apart.
        alignment_weight: of the mean squared distance of true pairs.
        uniformity_weight: of the mean of the uniformity of both modalities.
        cross_uniformity_weight: of the uniformity between the rows of one modality and those of the other.
    """

    temperature: float = 0.01
    learn_temperature: bool = False
    alignment_weight: float = 1.0
    uniformity_weight: float = 1.0
    cross_uniformity_weight: float = 0.0


class AlignUniformTerms(NamedTuple):
    """The weighted total, and the terms without their weights."""

    total: Tensor
    contrastive: Tensor
    alignment: Tensor
    uniformity: Tensor
    cross_uniformity: Tensor


class AlignUniformLoss(AnchoredLoss):
    """contrastive + alignment + uniformity inside both modalities [+ cross-uniformity], for each pair with the anchor.

    `1/n sum_i ||z_i - w_i||^2`, `1/2 (U(z) + U(w))` with `U(z) = log mean_{j != k} exp(-2 ||z_j - z_k||^2)`, and
    `log mean_{j != k} exp(-2 ||z_j - w_k||^2)`. Alignment is in [0, 4] (0: all pairs coincide), the others in [-8, 0]
    (0: all rows coincide).

    Known to fail: the cosine of true pairs can fall with it, although the gap closes, because uniformity spreads both
    modalities; retrieval hardly changes in the paper. Cross-uniformity is lowest (-8) where the modalities lie at
    opposite poles, which costs an alignment of 4: as much in all as evenly spread, coinciding pairs (-4 and 0). Heads
    on frozen features, trained from scratch, went to the poles.

    Reference: Fahim et al., arXiv 2405.18570; Wang and Isola, arXiv 2005.10242 (the terms, alpha = 2, t = 2).
    """

    def terms(self, batch: ComparedBatch) -> AlignUniformTerms:
        """The terms of a batch that is checked."""
        settings = self.settings
        contrastive = batch.contrastive()
        alignment = weighted(settings.alignment_weight, batch.alignment)
        uniformity = weighted(settings.uniformity_weight, partial(batch.mean, uniformity_inside))
        cross = weighted(settings.cross_uniformity_weight, partial(batch.mean, cross_uniformity))
        total = total_of(
            contrastive,
            (settings.alignment_weight, alignment),
            (settings.uniformity_weight, uniformity),
            (settings.cross_uniformity_weight, cross),
        )
        return AlignUniformTerms(total, contrastive, alignment, uniformity, cross)


def uniformity_inside(rows: PairOfRows) -> Tensor:
    """The mean over both modalities of `log mean_{j != k} exp(-2 ||z_j - z_k||^2)`, in [-8, 0]; lower spreads more.

    Rows that are positives of each other are not pushed apart.
    """
    if not are_apart(rows.positives, rows.count):
        return nothing_of(rows)
    each = [uniformity_of(rows.everyone(which), rows.positives, rows.ranks, is_small) for which in (0, 1)]
    return torch.stack(each).mean()


def cross_uniformity(rows: PairOfRows) -> Tensor:
    """`log mean_{j != k} exp(-2 ||z_j - w_k||^2)`, in [-8, 0]; lower is further apart."""
    if not are_apart(rows.positives, rows.count):
        return nothing_of(rows)
    positives = rows.positives
    if positives is None:  # a row is the same as itself alone
        positives = torch.arange(rows.count, device=rows.own[0].device)
    return log_mean_kernel(rows, (0, 1), UNIFORMITY_SCALE, positives)


def log_mean_kernel(rows: PairOfRows, which: tuple[int, int], scale: float, positives: Tensor | None = None) -> Tensor:
    """`cross_kernel.log_mean_cross_kernel` of two modalities of a pair, or of one with itself, over all ranks.

    Args:
        which: numbers of the two, 0 or 1 each.
        scale: of the squared distances.
        positives: [n] integers of all ranks; rows that share one are left out. None: every pair of rows counts.
    """
    own, everyone = rows.own[which[0]], rows.everyone(which[1])
    if rows.ranks is not None:
        return gathered_log_mean_cross_kernel(own, everyone, scale, positives, rows.of_this_rank, rows.ranks)
    kernel = log_mean_cross_kernel if is_small(own) else tiled_log_mean_cross_kernel
    return kernel(own, everyone, scale, positives)


def nothing_of(rows: PairOfRows) -> Tensor:
    """A zero that depends on the rows of a pair."""
    return (rows.own[0].sum() + rows.own[1].sum()) * 0.0


CUA = METHODS.add(
    "cua",
    Method(
        "cua",
        "contrastive, alignment, and uniformity inside each modality",
        AlignUniformSettings(),
        AlignUniformLoss,
        PAPER,
        ("alignment_weight", "uniformity_weight", "cross_uniformity_weight"),
    ),
)
CUAXU = METHODS.add(
    "cuaxu",
    Method(
        "cuaxu",
        "cua, and uniformity between the modalities",
        AlignUniformSettings(cross_uniformity_weight=1.0),
        AlignUniformLoss,
        PAPER,
        CUA.fixed,
    ),
)
