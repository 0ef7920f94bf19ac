"""GRAM: the volume that the modalities of a row span is small for true rows and large for false ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.errors import UsageError
from gapless.core.shapes import Embeddings, Rows
from gapless.losses.anchored import ContrastiveSettings
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.row_blocks import two_way_cross_entropy
from gapless.losses.whole_rows import WholeRowLoss, WholeRows, check_count

MOST_MODALITIES = 5  # the determinant is written out, and grows with the factorial


def check_smoothing(value: float) -> None:
    """Raise UsageError for a `label_smoothing` outside of [0, 1)."""
    if isinstance(value, bool) or not (math.isfinite(value) and 0 <= value < 1):
        raise UsageError(f"loss.label_smoothing must be at least 0 and below 1, got {value!r}")


@dataclass(frozen=True)
class GramSettings(ContrastiveSettings):
    """The settings of GRAM, with the values of the authors' code.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other.
        label_smoothing: the share of each target that is spread over all rows.
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise UsageError for more than five modalities."""
        check_count("gram", names, 2, MOST_MODALITIES)


class VolumeTerms(NamedTuple):
    """The total, and the mean size (volume or area) of true rows, without a gradient."""

    total: Tensor
    true_size: Tensor


class GramLoss(WholeRowLoss):
    """Cross entropy of `-V / temperature` both ways, V_ij the volume of anchor i with the other modalities of row j.

    `V = sqrt(|det F F'|)`, F the [modality, dim] rows: 0 where they are linearly dependent, 1 where they are
    orthonormal. Between two modalities it is the sine of their angle.

    The paper adds 0.1 times a matching loss, which needs a network that reads two inputs together; there is none here.
    The temperature is learned as a logarithm, as everywhere here, and not as itself.

    Memory: [pair, pair] volumes in blocks of rows, about 16 MiB for each of a dozen matrices whatever the batch; all at
    once, each would take 64 MiB at 4,096 pairs and 16 GiB at 65,536. Time is `modality - 1` products of [pair, pair,
    dim], twice in the backward pass.

    Known to fail: V is 0 as soon as any two modalities of a row are equal, or opposite, whatever the third is: what the
    third modality says is then free. And a volume of two modalities is small at a cosine of -1 too.

    Reference: Cicchetti et al., arXiv 2412.11959, section 3, and the authors' code.
    """

    def terms(self, batch: WholeRows) -> VolumeTerms:
        """The terms of a batch that is checked."""
        anchor, names = batch.own[self.anchor], batch.others(self.anchor)
        others = {name: batch.everyone[name] for name in names}
        scale = self.scale(batch.ranks)
        total = two_way_cross_entropy(
            lambda rows: -scale * volumes(anchor[rows], list(others.values())),
            batch.num_rows,
            batch.count,
            batch.device,
            batch.positives,
            self.settings.label_smoothing,
            batch.first,
            batch.ranks,
        )
        with torch.no_grad():
            true_size = row_volumes(batch.own, self.anchor).mean()
        return VolumeTerms(total, true_size if batch.ranks is None else batch.ranks.average(true_size))


def volumes(anchor: Embeddings, others: Sequence[Tensor]) -> Tensor:
    """`sqrt(|det F F'|)` of every anchor i with the other modalities of every row j.

    Args:
        anchor: [row, dim], unit-norm.
        others: one [column, dim] unit-norm matrix for each other modality, rows aligned.

    Returns:
        [row, column] in [0, 1]. Its gradient at a volume of 0, where the root has none, is 0.
    """
    cosines = [anchor @ rows.T for rows in others]
    gram = [[(one * other).sum(dim=1) for other in others] for one in others]
    norms = anchor.square().sum(dim=1, keepdim=True)
    determinants = norms * _determinant(gram)
    for row, one in enumerate(cosines):
        for column, other in enumerate(cosines):
            determinants = determinants - one * other * _cofactor(gram, row, column)
    return root(determinants.abs())


def row_volumes(embeddings: Mapping[str, Tensor], anchor: str) -> Rows:
    """`volumes` of each row's own modalities, [row]."""
    rows = [embeddings[anchor], *(other for name, other in embeddings.items() if name != anchor)]
    return root(_determinant([[(one * other).sum(dim=1) for other in rows] for one in rows]).abs())


def root(x: Tensor) -> Tensor:
    """The square root, with a gradient of 0 at 0 instead of an infinite one."""
    is_zero = x <= 0
    return torch.where(is_zero, torch.zeros_like(x), torch.where(is_zero, torch.ones_like(x), x).sqrt())


def _determinant(matrix: Sequence[Sequence[Tensor]]) -> Tensor:
    """The determinant of a small matrix of tensors: a polynomial, so that its gradient is finite everywhere."""
    if len(matrix) == 1:
        return matrix[0][0]
    return torch.stack([matrix[0][column] * _cofactor(matrix, 0, column) for column in range(len(matrix))]).sum(dim=0)


def _cofactor(matrix: Sequence[Sequence[Tensor]], row: int, column: int) -> Tensor:
    """The minor without a row and a column, with its sign."""
    if len(matrix) == 1:
        return torch.ones_like(matrix[0][0])
    minor = [[*line[:column], *line[column + 1 :]] for index, line in enumerate(matrix) if index != row]
    determinant = _determinant(minor)
    return determinant if (row + column) % 2 == 0 else -determinant


METHODS.add(
    "gram",
    Method(
        "gram",
        "cross entropy of the volume that the modalities of a row span",
        GramSettings(),
        GramLoss,
        "Cicchetti et al., arXiv 2412.11959, section 3",
    ),
)
