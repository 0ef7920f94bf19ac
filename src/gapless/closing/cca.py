"""Regularised canonical correlation analysis: the directions in which two modalities agree, the surest ones loudest."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.layers import AffineMap, affine_model
from gapless.core.errors import UsageError

ROUNDING = 1e-10  # of the largest eigenvalue; smaller ones are directions in which the rows do not vary
REPORTED = 10  # correlations in `results.json`


@dataclass(frozen=True)
class CcaSettings(ClosingSettings):
    """The settings of cca.

    Args:
        ridge: added to every eigenvalue of a modality's covariance, in units of their mean; 0 is plain CCA, which finds
            correlations of 1 in any rows that are no more than their dims.
        weight: power of its correlation that each direction is multiplied with, in both modalities; 0 weighs all alike,
            0.5 gives the similarity of CSA.
        num_directions: directions that are kept, those of the largest correlations; default: all.
    """

    ridge: float = 1.0
    weight: float = 1.0
    num_directions: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("ridge", self.ridge), ("weight", self.weight)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name} is a number of at least 0, got {value}")
        if self.num_directions is not None and self.num_directions < 1:
            raise UsageError(f"num_directions is at least 1, got {self.num_directions}")


@dataclass(frozen=True)
class CanonicalDirections:
    """What `fit_cca` finds.

    Args:
        first, second: [dim, direction] of each modality; centred rows times these are the canonical variables.
        correlations: [direction] in [0, 1], falling; with a ridge they are shrunk.
    """

    first: Tensor
    second: Tensor
    correlations: Tensor


class Cca:
    """Brings two modalities to the directions in which they correlate, each weighted by its correlation."""

    name = "cca"
    summary = "keep the directions in which two modalities correlate, weighted by the correlation; dims may differ"
    source = "Hotelling, Biometrika 28 (1936); with a ridge, Vinod (1976); weighted, CSA, arXiv 2410.07610"
    settings = CcaSettings

    def fit(self, pairs: ClosingPairs, settings: CcaSettings, seed: int, *, folder: Path) -> FittedMethod:
        if len(pairs.sizes) != 2:
            raise UsageError(
                f"cca takes two modalities, got {len(pairs.sizes)} ({', '.join(pairs.sizes)}); use --method procrustes"
            )
        rows = pairs.training
        first, second = rows
        found = fit_cca(rows[first], rows[second], settings.ridge)
        kept = slice(settings.num_directions)
        correlations = found.correlations[kept]
        weights = correlations**settings.weight
        maps = {
            first: AffineMap(rows[first].mean(dim=0), found.first[:, kept] * weights),
            second: AffineMap(rows[second].mean(dim=0), found.second[:, kept] * weights),
        }
        return FittedMethod(affine_model(pairs, maps), {"correlations": correlations[:REPORTED].tolist()})


def fit_cca(first: Tensor, second: Tensor, ridge: float) -> CanonicalDirections:
    """Canonical directions of two modalities, by way of their covariances.

    With C the covariances of the centred rows and g the ridge times the mean eigenvalue of each:
    `(C_zz + g I)^-1/2 C_zw (C_ww + g I)^-1/2 = U diag(correlations) V^T`, and the directions are
    `(C_zz + g I)^-1/2 U` and `(C_ww + g I)^-1/2 V`. Directions in which the rows do not vary are left out, so that
    fewer rows than dims, and a ridge of 0, give finite numbers.

    Args:
        first, second: [pair, dim] rows, aligned; dims may differ.
        ridge: at least 0.

    Returns:
        as many directions as the smaller rank of the two.

    Reference: Vinod, Journal of Econometrics 4 (1976).
    """
    z, w = ((rows - rows.mean(dim=0)).double() for rows in (first.double(), second.double()))
    whitened_z, whitened_w = (inverse_root(rows.T @ rows / len(rows), ridge) for rows in (z, w))
    across = whitened_z.T @ (z.T @ w / len(z)) @ whitened_w
    left, correlations, right = torch.linalg.svd(across, full_matrices=False)
    return CanonicalDirections(whitened_z @ left, whitened_w @ right.T, correlations.clamp(max=1.0))


def inverse_root(covariance: Tensor, ridge: float) -> Tensor:
    """`E (D + g I)^-1/2` [dim, rank] of a covariance `E D E^T`, with g the ridge times the mean eigenvalue."""
    values, vectors = torch.linalg.eigh(covariance)
    varies = values > ROUNDING * values[-1]
    scale = (values[varies] + ridge * values.mean()).rsqrt()
    root: Tensor = vectors[:, varies] * scale
    return root


METHOD = CLOSING_METHODS.add(Cca.name, Cca())
