"""CS-Aligner: the Cauchy-Schwarz divergence between the distributions of two modalities (Yin et al.)."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.errors import UsageError
from gapless.core.shapes import Embeddings, Scalar
from gapless.losses.align_uniform import log_mean_kernel
from gapless.losses.anchored import AnchoredLoss, ComparedBatch, ContrastiveSettings, PairOfRows, total_of, weighted
from gapless.losses.base import METHODS, Method
from gapless.losses.engine.cross_kernel import log_mean_cross_kernel


@dataclass(frozen=True)
class CsAlignerSettings(ContrastiveSettings):
    """The settings of CS-Aligner.

    Args:
        temperature: start value, or the fixed value.
        learn_temperature: train `logit_scale` (fp32, clamped to 100, no weight decay).
        mask_duplicates: pairs whose captions are the same are not negatives of each other; the divergence is between
            sets of rows and leaves none out.
        divergence_weight: the paper's lambda.
        kernel_width: the sigma of the Gaussian kernel, above 0; the paper's value was not found, 1 is ours. Distances
            of unit-norm rows are at most 2.
    """

    divergence_weight: float = 1.0
    kernel_width: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.kernel_width) and self.kernel_width > 0):
            raise UsageError(f"loss.kernel_width must be finite and above 0, got {self.kernel_width!r}")


class CsAlignerTerms(NamedTuple):
    """The weighted total, and the terms without their weights."""

    total: Tensor
    contrastive: Tensor
    divergence: Tensor


class CsAlignerLoss(AnchoredLoss):
    """contrastive + `divergence_weight` times `cauchy_schwarz_divergence`, for each pair with the anchor.

    The divergence compares sets of rows and not pairs: it is 0 for two modalities that hold the same rows in another
    order, so that the contrastive term alone says which row belongs to which.

    Known to fail: a narrow kernel of sets that do not overlap has log 0 in a plain implementation; here the largest
    exponent is taken out, so that the value stays finite (of order 1 / sigma^2).

    Reference: Yin et al., arXiv 2502.17028, the divergence by kernel density estimates.
    """

    def terms(self, batch: ComparedBatch) -> CsAlignerTerms:
        """The terms of a batch that is checked."""
        weight, scale = self.settings.divergence_weight, _scale_of(self.settings.kernel_width)

        def divergence(rows: PairOfRows) -> Tensor:
            inside = torch.stack([log_mean_kernel(rows, (which, which), scale) for which in (0, 1)]).sum()
            return inside - 2 * log_mean_kernel(rows, (0, 1), scale)

        contrastive = batch.contrastive()
        divergences = weighted(weight, lambda: batch.mean(divergence))
        return CsAlignerTerms(total_of(contrastive, (weight, divergences)), contrastive, divergences)


def cauchy_schwarz_divergence(a: Embeddings, b: Embeddings, kernel_width: float) -> Scalar:
    """`log mean k(a, a) + log mean k(b, b) - 2 log mean k(a, b)`, k(x, y) = exp(-||x - y||^2 / (2 sigma^2)).

    The means are over all pairs of rows, a row with itself among them (kernel density estimates).

    Args:
        a: [row, dim].
        b: [row, dim].
        kernel_width: sigma, above 0.

    Returns:
        At least 0; 0 where both hold the same rows, in any order.

    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    >>> cauchy_schwarz_divergence(a, b, kernel_width=1.0)
    tensor(4.)
    """
    scale = _scale_of(kernel_width)
    inside = log_mean_cross_kernel(a, a, scale) + log_mean_cross_kernel(b, b, scale)
    return inside - 2 * log_mean_cross_kernel(a, b, scale)


def _scale_of(kernel_width: float) -> float:
    return 1 / (2 * kernel_width**2)


METHODS.add(
    "cs-aligner",
    Method(
        "cs-aligner",
        "contrastive, and the Cauchy-Schwarz divergence between the modalities",
        CsAlignerSettings(),
        CsAlignerLoss,
        "Yin et al., arXiv 2502.17028",
    ),
)
