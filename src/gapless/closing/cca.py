"""Regularised canonical correlation analysis: the directions in which two modalities agree, the surest ones loudest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.cca_choice import CcaRows, Ridges, choose
from gapless.closing.layers import AffineMap, affine_model
from gapless.closing.moments import Moments, spectrum_of
from gapless.core.errors import DataRefused, UsageError

REPORTED = 10  # correlations in `results.json`


@dataclass(frozen=True)
class CcaSettings(ClosingSettings):
    """The settings of cca. What is null is chosen by folds of the training rows that keep groups whole.

    Args:
        ridge: added to every eigenvalue of a modality's covariance, in units of their mean: one number, or one for each
            modality in their order, such as [3, 1]; 0 is plain CCA, which finds correlations of 1 in any rows that are
            no more than their dims.
        weight: power of its correlation that each direction is multiplied with, in both modalities; 0 weighs all alike,
            0.5 gives the similarity of CSA.
        num_directions: directions that are kept, those of the largest correlations; as many as the dims keep all.
    """

    ridge: float | tuple[float, float] | None = None
    weight: float | None = None
    num_directions: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("ridge", self.ridges), ("weight", None if self.weight is None else (self.weight,))):
            for number in value or ():
                if not 0 <= number < float("inf"):
                    raise UsageError(f"{name} is a number of at least 0, got {number}")
        if self.num_directions is not None and self.num_directions < 1:
            raise UsageError(f"num_directions is at least 1, got {self.num_directions}")

    @property
    def ridges(self) -> Ridges | None:
        """One ridge for each modality; None where they are chosen."""
        if self.ridge is None or isinstance(self.ridge, int | float):
            return None if self.ridge is None else (self.ridge, self.ridge)
        if len(self.ridge) != 2:
            raise UsageError(f"ridge is one number or one for each of two modalities, got {len(self.ridge)}")
        return self.ridge[0], self.ridge[1]


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
        first, second = pairs.sizes
        rows = CcaRows.of(pairs.embeddings[first], pairs.embeddings[second], pairs.train)
        choice = choose(rows, pairs, settings.ridges, settings.weight, settings.num_directions, seed)
        ridges, weight, num_directions = choice.setting
        found = canonical_directions(rows, choice.moments, ridges)
        kept = slice(num_directions)
        correlations = found.correlations[kept]
        weights = correlations**weight
        maps = {
            first: AffineMap(rows.means[0], found.first[:, kept] * weights),
            second: AffineMap(rows.means[1], found.second[:, kept] * weights),
        }
        facts: dict[str, Any] = {"correlations": correlations[:REPORTED].tolist()}
        return FittedMethod(affine_model(pairs, maps), facts | ({"chosen": choice.facts} if choice.facts else {}))


def fit_cca(first: Tensor, second: Tensor, ridge: float | Ridges) -> CanonicalDirections:
    """Canonical directions of two modalities, by way of their covariances.

    With C the covariances of the centred rows and g the ridge times the mean eigenvalue of each:
    `(C_zz + g I)^-1/2 C_zw (C_ww + g I)^-1/2 = U diag(correlations) V^T`, and the directions are
    `(C_zz + g I)^-1/2 U` and `(C_ww + g I)^-1/2 V`. Directions in which the rows do not vary are left out, so that
    fewer rows than dims, and a ridge of 0, give finite numbers.

    Args:
        first, second: [pair, dim] rows, aligned; dims may differ.
        ridge: at least 0; one for both, or one for each.

    Returns:
        as many directions as the smaller rank of the two.

    Raises:
        DataRefused: a modality whose rows are all the same.

    Reference: Vinod, Journal of Econometrics 4 (1976).
    """
    ridges = ridge if isinstance(ridge, tuple) else (ridge, ridge)
    rows = CcaRows.of(first, second, np.arange(len(first)))
    return canonical_directions(rows, rows.moments(), ridges)


def canonical_directions(rows: CcaRows, moments: Moments, ridges: Ridges) -> CanonicalDirections:
    """`fit_cca` of rows whose moments are there."""
    spectra = [spectrum_of(moments.covariance(side), rows.dims[side]) for side in (0, 1)]
    if not all(len(spectrum.values) for spectrum in spectra):
        raise DataRefused("cca needs rows that vary, and all rows of a modality are the same")
    whitened = [spectrum.vectors * spectrum.scale(ridge) for spectrum, ridge in zip(spectra, ridges, strict=True)]
    across = whitened[0].T @ moments.cross_covariance() @ whitened[1]
    left, correlations, right = torch.linalg.svd(across, full_matrices=False)
    return CanonicalDirections(
        rows.in_dims(0, whitened[0] @ left), rows.in_dims(1, whitened[1] @ right.T), correlations.clamp(max=1.0)
    )


METHOD = CLOSING_METHODS.add(Cca.name, Cca())
