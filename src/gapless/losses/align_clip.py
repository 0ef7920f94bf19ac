"""AlignCLIP: rows of one modality are pushed apart, the more so the less they mean the same (Eslami and de Melo)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.shapes import Embeddings, Positives, Scalar
from gapless.losses.anchored import AnchoredLoss, ComparedBatch, ContrastiveSettings, PairOfRows, weighted
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.row_blocks import row_cross_entropy, same_items


@dataclass(frozen=True)
class AlignClipSettings(ContrastiveSettings):
    """The settings of AlignCLIP, with the weights of the paper.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other, and not pushed apart.
        contrastive_weight: the paper's alpha, of the sum of both directions (twice the contrastive term).
        separation_weight: the paper's beta, of the sum over both modalities.
    """

    contrastive_weight: float = 1.0
    separation_weight: float = 0.5


class AlignClipTerms(NamedTuple):
    """The weighted total, and the terms without their weights; contrastive is the mean of both directions."""

    total: Tensor
    contrastive: Tensor
    separation: Tensor


class AlignClipLoss(AnchoredLoss):
    """`alpha (row + column cross entropy) + beta (separation of z + separation of w)`, for each pair with the anchor.

    Separation is the cross entropy of finding row i by the logits `s (cos(z_i, z_j) D_ij)`, j != i, and
    `s cos(z_i, w_i)`: the true pair must be nearer than other rows of its own modality.

    Two departures from the paper. Its D is 1 minus the cosine of a sentence encoder that does not train; no such
    encoder is at hand in a loss, so that D is taken from the anchor's embeddings of the batch themselves, without a
    gradient (and the cosines inside the anchor are then weighted by their own distances). And the paper shares one
    tower between the modalities, which is a matter of the model: encoders of different kinds cannot share one.

    Known to fail: frozen encoders of different kinds have nothing to share, which is the larger half of the method.

    Reference: Eslami and de Melo, arXiv 2406.17639, with the sums of the authors' code.
    """

    def terms(self, batch: ComparedBatch) -> AlignClipTerms:
        """The terms of a batch that is checked."""
        alpha, beta = self.settings.contrastive_weight, self.settings.separation_weight
        contrastive = batch.contrastive()
        scale = self.scale(batch.batch.ranks)
        separation = weighted(beta, lambda: batch.mean(partial(_separation_of, scale=scale)))
        total = 2 * alpha * contrastive
        return AlignClipTerms(total + beta * separation if beta != 0 else total, contrastive, separation)


def intra_modality_separation(
    a: Embeddings, b: Embeddings, logit_scale: Scalar | float, positives: Positives | None = None
) -> Scalar:
    """The sum over both modalities of the separation of `AlignClipLoss`; the distances D are those of `b`.

    Args:
        a: [pair, dim], unit-norm.
        b: [pair, dim], unit-norm; the anchor.
        logit_scale: 1 / temperature.
        positives: [pair] integers; rows that share one are not pushed apart.

    Returns:
        At least 0, lower is better.
    """
    whole = (a, b), (a, b)
    terms = [_separation(whole[0], whole[1], which, logit_scale, positives, 0, len(a)) for which in (0, 1)]
    return torch.stack([row_cross_entropy(term, len(a), len(a), len(a)) for term in terms]).sum()


def _separation_of(rows: PairOfRows, scale: Tensor) -> Tensor:
    everyone, first = (rows.everyone(0), rows.everyone(1)), rows.of_this_rank.start
    terms = [_separation(rows.own, everyone, which, scale, rows.positives, first, rows.count) for which in (0, 1)]
    num_rows = len(rows.own[0])
    return torch.stack([row_cross_entropy(term, num_rows, rows.count, rows.count, rows.ranks) for term in terms]).sum()


def _separation(
    own: tuple[Tensor, Tensor],
    everyone: tuple[Tensor, Tensor],
    which: int,
    scale: Tensor | float,
    positives: Tensor | None,
    first: int,
    count: int,
) -> Callable[[slice], tuple[Tensor, Tensor]]:
    """The logits of the separation of one modality, as `row_blocks.row_cross_entropy` takes them."""

    def logits_of(part: slice) -> tuple[Tensor, Tensor]:
        mine, others = own[which][part], everyone[which]
        with torch.no_grad():
            distance = 1 - own[1][part] @ everyone[1].T
        true_pair = scale * (own[0][part] * own[1][part]).sum(dim=1)
        is_same = same_items(positives, part, count, first, mine.device)
        apart = (scale * (mine @ others.T) * distance).masked_fill(is_same, -math.inf)
        return torch.cat([true_pair[:, None], apart], dim=1), true_pair

    return logits_of


METHODS.add(
    "align-clip",
    Method(
        "align-clip",
        "contrastive, and rows of one modality pushed apart",
        AlignClipSettings(),
        AlignClipLoss,
        "Eslami and de Melo, arXiv 2406.17639",
    ),
)
