"""Shifting: each modality moves some of the way to the others, along the gap, or loses its part along the gap."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod, one_dim
from gapless.closing.layers import AffineMap, affine_model
from gapless.closing.map_choice import best_option
from gapless.closing.moments import mean_of
from gapless.core.errors import UsageError, unknown_name

AMOUNTS = (1.0, 0.75, 0.5, 0.25, 0.0, 1.25)
HOW = ("along", "orthogonal")


@dataclass(frozen=True)
class ShiftSettings(ClosingSettings):
    """The settings of shift.

    Args:
        amount: of the way that is gone, from 0 (nothing changes) by 1 (the means meet) to 2 (they change places);
            default: what retrieves best in folds of the training rows that keep groups whole.
        how: along moves all rows of a modality by the same vector, towards the mean of the means; orthogonal takes from
            each row its own part along the gap.
    """

    amount: float | None = None
    how: Literal["along", "orthogonal"] = "along"

    def __post_init__(self) -> None:
        if self.how not in HOW:
            raise unknown_name("how", self.how, HOW)
        if self.amount is not None and not 0 <= self.amount <= 2:
            raise UsageError(f"amount is a number from 0 to 2, got {self.amount}")


class Shift:
    """Moves the modalities together along the gap vector, or removes that direction."""

    name = "shift"
    summary = "move each modality some of the way along the gap, or take out that direction; one dim for all"
    source = "Liang et al., Mind the Gap, arXiv 2203.02053 (the shift, train_clip.py)"
    settings = ShiftSettings
    takes_absent = True

    def fit(self, pairs: ClosingPairs, settings: ShiftSettings, seed: int, *, folder: Path) -> FittedMethod:
        one_dim(pairs, self.name)

        def maps_of(rows: np.ndarray) -> Callable[[float], dict[str, AffineMap]]:
            offsets = gap_offsets(pairs, rows)
            return lambda amount: shift_maps(offsets, amount, settings.how)

        if settings.amount is not None:
            return FittedMethod(affine_model(pairs, maps_of(pairs.train)(settings.amount)))
        amount, facts = best_option(pairs, AMOUNTS, maps_of, seed)
        return FittedMethod(affine_model(pairs, maps_of(pairs.train)(amount)), {"chosen": {"amount": amount, **facts}})


def gap_offsets(pairs: ClosingPairs, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Modality -> [dim] mean of some rows less the mean of all means: of two, plus and minus half the gap."""
    means = {name: mean_of(matrix, pairs.common(rows, name)) for name, matrix in pairs.embeddings.items()}
    middle = torch.stack(list(means.values())).mean(dim=0)
    return {name: mean - middle for name, mean in means.items()}


def shift_maps(offsets: dict[str, torch.Tensor], amount: float, how: str) -> dict[str, AffineMap]:
    """With g the gap vector of two modalities, `z - amount/2 g` and `w + amount/2 g`, or `x - amount <x, g^> g^`.

    Of more modalities, each moves towards the mean of their means, or loses what lies in the span of the offsets.

    Args:
        offsets: what `gap_offsets` gives.
        amount: 0 changes nothing; at 1 the means are one, or no row has a part along the gap.
        how: along or orthogonal.
    """
    size = len(next(iter(offsets.values())))
    identity = torch.eye(size, dtype=torch.float64)
    if how == "along":
        return {name: AffineMap(amount * offset, identity) for name, offset in offsets.items()}
    _, lengths, directions = torch.linalg.svd(torch.stack(list(offsets.values())), full_matrices=False)
    spanned = directions[lengths > 1e-9]
    left_over = identity - amount * spanned.T @ spanned
    return {name: AffineMap(torch.zeros(size, dtype=torch.float64), left_over) for name in offsets}


METHOD = CLOSING_METHODS.add(Shift.name, Shift())
