"""CyCLIP: similarities that agree across and inside the modalities (Goel et al.)."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor

from gapless.core.shapes import Embeddings, Scalar
from gapless.losses.anchored import (
    AnchoredLoss,
    ComparedBatch,
    ContrastiveSettings,
    PairOfRows,
    total_of,
    weighted,
)
from gapless.losses.base import METHODS, Method


@dataclass(frozen=True)
class CyclipSettings(ContrastiveSettings):
    """The settings of CyCLIP, with the paper's weights.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
        in_modal_weight: of the term that makes the cosines inside one modality those inside the other.
        cross_modal_weight: of the term that makes the cosines of row i with row j those of row j with row i.
    """

    in_modal_weight: float = 0.25
    cross_modal_weight: float = 0.25


class CyclipTerms(NamedTuple):
    """The weighted total, and the terms without their weights."""

    total: Tensor
    contrastive: Tensor
    in_modal: Tensor
    cross_modal: Tensor


class CyclipLoss(AnchoredLoss):
    """contrastive + `in_modal_weight / n ||z z' - w w'||_F^2` + `cross_modal_weight / n ||S - S'||_F^2`, S = z w'.

    Both terms are at least 0, and 0 where w = z. They take O(n d) memory and O(n d^2) time, without any [n, n] matrix.

    Known to fail: the first term is 0 for any rotation w = z R, so that it closes no gap.

    Reference: Goel et al., arXiv 2205.14459, section 3, with the scaling of the authors' code (the sum over n^2 cosines
    divided by n).
    """

    def terms(self, batch: ComparedBatch) -> CyclipTerms:
        """The terms of a batch that is checked."""
        in_weight, cross_weight = self.settings.in_modal_weight, self.settings.cross_modal_weight
        contrastive = batch.contrastive()
        in_modal = weighted(in_weight, partial(batch.mean, _in_modal))
        cross_modal = weighted(cross_weight, partial(batch.mean, _cross_modal))
        total = total_of(contrastive, (in_weight, in_modal), (cross_weight, cross_modal))
        return CyclipTerms(total, contrastive, in_modal, cross_modal)


def in_modal_consistency(a: Embeddings, b: Embeddings) -> Scalar:
    """`1/n ||a a' - b b'||_F^2`; at least 0, and 0 where b is a rotation of a."""
    straight, twisted = _norms(*_products(a, b))
    return (straight + twisted) / (2 * len(a))


def cross_modal_consistency(a: Embeddings, b: Embeddings) -> Scalar:
    """`1/n ||a b' - b a'||_F^2`; at least 0, and 0 where a = b."""
    straight, twisted = _norms(*_products(a, b))
    return (straight - twisted) / (2 * len(a))


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The [dim, dim] products s's, e'e and e's of the sums s = a + b and the differences e = a - b of true pairs."""
    plus, minus = a + b, a - b
    return plus.T @ plus, minus.T @ minus, minus.T @ plus


def _norms(plus: Tensor, minus: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """`||s e'||_F^2` and the inner product of s e' with its transpose.

    With a = (s + e) / 2 and b = (s - e) / 2, `a a' - b b' = (s e' + e s') / 2` and `a b' - b a' = (e s' - s e') / 2`.
    Nothing large cancels: all is of the square of e, also where the pairs nearly coincide.
    """
    return (plus * minus).sum(), (mixed * mixed.T).sum()


def _of_all_ranks(rows: PairOfRows) -> tuple[Tensor, Tensor]:
    return _norms(*(rows.total(product) for product in _products(*rows.own)))


def _in_modal(rows: PairOfRows) -> Tensor:
    straight, twisted = _of_all_ranks(rows)
    return (straight + twisted) / (2 * rows.count)


def _cross_modal(rows: PairOfRows) -> Tensor:
    straight, twisted = _of_all_ranks(rows)
    return (straight - twisted) / (2 * rows.count)


METHODS.add(
    "cyclip",
    Method(
        "cyclip",
        "contrastive, and cosines that agree across and inside the modalities",
        CyclipSettings(),
        CyclipLoss,
        "Goel et al., arXiv 2205.14459, section 3",
    ),
)
