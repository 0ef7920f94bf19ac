"""Standardising: each number of a modality less its mean, over its standard deviation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod, one_dim
from gapless.closing.layers import AffineMap, affine_model
from gapless.closing.moments import column_variance
from gapless.core.errors import UsageError
from gapless.embeddings.stored_rows import Rows


@dataclass(frozen=True)
class StandardiseSettings(ClosingSettings):
    """The settings of standardise.

    Args:
        floor: the least standard deviation that a number is divided by, as a share of the root mean square of those of
            its modality: numbers that hardly vary are not blown up, and constant ones become 0.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.floor < float("inf"):
            raise UsageError(f"floor is a number above 0, got {self.floor}")


class Standardise:
    """Makes the mean 0 and the standard deviation 1, number by number, in each modality."""

    name = "standardise"
    summary = "subtract each modality's mean and divide each number by its standard deviation; one dim for all"
    source = "z-scoring by modality; I0T, arXiv 2412.14384, describes it, and its published code centres only"
    settings = StandardiseSettings
    takes_absent = True

    def fit(self, pairs: ClosingPairs, settings: StandardiseSettings, seed: int, *, folder: Path) -> FittedMethod:
        one_dim(pairs, self.name)
        return FittedMethod(affine_model(pairs, fit_standardise(pairs.training_rows(), settings.floor)))


def fit_standardise(embeddings: Mapping[str, Rows], floor: float) -> dict[str, AffineMap]:
    """`(x - mean) / max(sd, floor * rms(sd))`, number by number, in each modality.

    The mean, and the spread of each number, become those of the other modality; what two numbers have to do with each
    other stays. When all numbers of a modality spread alike, its cosines are those of centring.

    Args:
        embeddings: modality -> [row, dim] rows, each modality's own.
        floor: above 0.
    """
    maps = {}
    for name, rows in embeddings.items():
        variance, mean = column_variance(rows)
        least = floor * variance.mean().sqrt()
        maps[name] = AffineMap(mean, torch.diag(1 / variance.sqrt().clamp_min(least)))
    return maps


METHOD = CLOSING_METHODS.add(Standardise.name, Standardise())
