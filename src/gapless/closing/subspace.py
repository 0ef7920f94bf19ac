"""A subspace of the centred rows: the directions in which they vary most, or all but the numbers that carry the gap."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod, one_dim
from gapless.closing.layers import AffineMap, affine_model
from gapless.closing.map_choice import best_option
from gapless.closing.moments import covariance_of, mean_of
from gapless.core.errors import UsageError, unknown_name

HOW = ("keep", "drop")


@dataclass(frozen=True)
class SubspaceSettings(ClosingSettings):
    """The settings of subspace.

    Args:
        how: keep takes the first principal directions of the centred rows of all modalities together; drop leaves out
            the numbers of an embedding in which the modalities' means differ most.
        num_directions: that are kept, or dropped; default: what retrieves best in folds of the training rows that keep
            groups whole.
    """

    how: Literal["keep", "drop"] = "keep"
    num_directions: int | None = None

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise unknown_name("how", self.how, HOW)
        least = 1 if self.how == "keep" else 0
        if self.num_directions is not None and self.num_directions < least:
            raise UsageError(f"num_directions is at least {least}, got {self.num_directions}")


class Subspace:
    """Centres, and keeps the common principal directions, or drops the numbers that carry the gap."""

    name = "subspace"
    summary = "subtract the means, keep the main common directions or drop the numbers of the gap; one dim for all"
    source = "principal components (Pearson 1901); dropping: Schrodi et al., arXiv 2404.07983 (there an ablation)"
    settings = SubspaceSettings
    takes_absent = True

    def fit(self, pairs: ClosingPairs, settings: SubspaceSettings, seed: int, *, folder: Path) -> FittedMethod:
        size = one_dim(pairs, self.name)
        number = settings.num_directions
        if number is not None and number > size - (settings.how == "drop"):
            raise UsageError(f"num_directions is {number}, and rows have {size} numbers; one at least must stay")

        def maps_of(rows: np.ndarray) -> Callable[[int], dict[str, AffineMap]]:
            means = {name: mean_of(matrix, pairs.common(rows, name)) for name, matrix in pairs.embeddings.items()}
            if settings.how == "drop":
                directions = by_gap(means)
                return lambda count: {name: AffineMap(mean, directions[:, count:]) for name, mean in means.items()}
            directions = by_variance(pairs, means, rows)
            return lambda count: {name: AffineMap(mean, directions[:, :count]) for name, mean in means.items()}

        if number is not None:
            return FittedMethod(affine_model(pairs, maps_of(pairs.train)(number)))
        count, facts = best_option(pairs, counts(size, settings.how), maps_of, seed)
        model = affine_model(pairs, maps_of(pairs.train)(count))
        return FittedMethod(model, {"chosen": {"num_directions": count, **facts}})


def by_variance(pairs: ClosingPairs, means: dict[str, Tensor], rows: np.ndarray) -> Tensor:
    """[dim, dim] principal directions of some centred rows of all modalities stacked, the widest first."""
    parts = [covariance_of(matrix, means[name], pairs.common(rows, name)) for name, matrix in pairs.embeddings.items()]
    directions: Tensor = torch.linalg.eigh(torch.stack(parts).mean(dim=0)).eigenvectors.flip(1)
    return directions


def by_gap(means: dict[str, Tensor]) -> Tensor:
    """[dim, dim] the axes in order, those first in which the means differ most."""
    spread = torch.stack(list(means.values())).var(dim=0)
    order = spread.argsort(descending=True, stable=True)
    return torch.eye(len(spread), dtype=torch.float64)[:, order]


def counts(size: int, how: str) -> list[int]:
    """The numbers that are tried: all and powers of two to keep; none, and powers of two up to a quarter, to drop.

    >>> counts(48, "keep"), counts(48, "drop")
    ([48, 32, 16, 8], [0, 1, 2, 4, 8])
    """
    if how == "keep":
        return [size, *(2**power for power in range(11, 2, -1) if 2**power < size)]
    return [0, *(2**power for power in range(11) if 2**power <= size // 4)]


METHOD = CLOSING_METHODS.add(Subspace.name, Subspace())
