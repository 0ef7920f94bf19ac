"""The ridges, the weight and the number of directions of CCA, chosen by rows of other groups than were fitted on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import ClosingPairs
from gapless.closing.folds import NUM_FOLDS, Fold, group_folds, reciprocal_ranks, scored_rows
from gapless.closing.moments import Moments, mean_of, moments_of, spanned_basis, spectrum_of, summed
from gapless.embeddings.stored_rows import Rows

# In each grid the first of equals is chosen, so the usual ones come first.
RIDGES = (1.0, 3.0, 0.3, 10.0, 0.03)
WEIGHTS = (1.0, 0.5, 2.0)
DIRECTIONS = (64, 128, 32, 256, 16)

Ridges = tuple[float, float]


class Setting(NamedTuple):
    """One setting of CCA."""

    ridges: Ridges
    weight: float
    num_directions: int


@dataclass(frozen=True)
class Choice:
    """The setting that is fitted, the moments of all rows, and what `results.json` says of how it was chosen.

    The facts are empty where the setting was given.
    """

    setting: Setting
    moments: Moments
    facts: dict[str, Any]


@dataclass(frozen=True)
class CcaRows:
    """Two modalities as CCA reads them; where rows are fewer than dims, in a basis of what they span.

    Args:
        rows: [row, size] of each modality.
        chosen: the row numbers that are fitted on.
        means: [dim] of the fitted rows, in float64.
        bases: [dim, size], or None where the rows have all their dims.
    """

    rows: tuple[Rows, Rows]
    chosen: np.ndarray
    means: tuple[Tensor, Tensor]
    bases: tuple[Tensor | None, Tensor | None]

    @classmethod
    def of(cls, first: Rows, second: Rows, chosen: np.ndarray) -> "CcaRows":
        """Of [pair, dim] rows, aligned."""
        rows, means = (first, second), (mean_of(first, chosen), mean_of(second, chosen))
        bases = tuple(spanned_basis(one, chosen, mean) for one, mean in zip(rows, means, strict=True))
        if all(basis is None for basis in bases):
            return cls(rows, chosen, means, (None, None))
        few = [
            one[chosen].double() - mean if basis is None else (one[chosen].double() - mean) @ basis
            for one, mean, basis in zip(rows, means, bases, strict=True)
        ]
        return cls((few[0], few[1]), np.arange(len(chosen)), means, (bases[0], bases[1]))

    @property
    def dims(self) -> tuple[int, int]:
        return len(self.means[0]), len(self.means[1])

    @property
    def origins(self) -> tuple[Tensor, Tensor]:
        """What is subtracted before moments are summed: the means, or nothing where that was done already."""
        is_centred = any(basis is not None for basis in self.bases)
        sizes = [rows.shape[1] for rows in self.rows]
        zeros = torch.zeros(sizes[0], dtype=torch.float64), torch.zeros(sizes[1], dtype=torch.float64)
        return zeros if is_centred else self.means

    def moments(self, part: np.ndarray | None = None) -> Moments:
        """Of all fitted rows, or of those at some positions in them."""
        return moments_of(*self.rows, self.origins, self.chosen if part is None else self.chosen[part])

    def in_dims(self, side: int, directions: Tensor) -> Tensor:
        """[dim, direction] of directions that are in the basis."""
        basis = self.bases[side]
        return directions if basis is None else basis @ directions


class FoldView:
    """One fold with what all its settings share: the spectra without it, and its rows along their directions.

    In fp32, which is exact enough to compare settings and takes half the time; the setting that is taken is fitted in
    float64.
    """

    def __init__(self, rows: CcaRows, fit: Moments, scored: np.ndarray, positives: np.ndarray) -> None:
        self.spectra = (
            spectrum_of(fit.covariance(0).float(), rows.dims[0]),
            spectrum_of(fit.covariance(1).float(), rows.dims[1]),
        )
        first, second = (spectrum.vectors for spectrum in self.spectra)
        self.across = first.T @ fit.cross_covariance().float() @ second
        self.held = tuple(
            (matrix[rows.chosen[scored]].double() - origin - mean).float() @ spectrum.vectors
            for matrix, origin, mean, spectrum in zip(rows.rows, rows.origins, fit.means, self.spectra, strict=True)
        )
        self.positives = torch.from_numpy(positives[scored])

    def variables(self, ridges: Ridges, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """The held rows' canonical variables, [row, direction] of each modality, and the correlations, falling.

        By an eigendecomposition of the smaller side in fp32: exact enough to compare settings, several times faster
        than singular values.
        """
        scales = [spectrum.scale(ridge).float() for spectrum, ridge in zip(self.spectra, ridges, strict=True)]
        matrix = scales[0][:, None] * self.across * scales[1]
        is_wide = matrix.shape[0] <= matrix.shape[1]
        values, vectors = torch.linalg.eigh(matrix @ matrix.T if is_wide else matrix.T @ matrix)
        correlations = values.flip(0)[:most].clamp(1e-12, 1.0).sqrt()
        one = vectors.flip(1)[:, :most]
        other = (matrix.T if is_wide else matrix) @ one / correlations
        left, right = (one, other) if is_wide else (other, one)
        return (self.held[0] * scales[0]) @ left, (self.held[1] * scales[1]) @ right, correlations

    def scores(self, ridges: Ridges, weights: Sequence[float], directions: Sequence[int]) -> dict[Setting, float]:
        """MRR of the held rows, both directions, for each weight and number of directions.

        The similarities of the first few directions are a part of those of more, so they are summed up once.
        """
        first, second, correlations = self.variables(ridges, max(directions))
        found = {}
        for weight in weights:
            x, y = first * correlations**weight, second * correlations**weight
            products = torch.zeros(len(x), len(y))
            norms = torch.zeros(len(x)), torch.zeros(len(y))
            start = 0
            for stop in sorted(directions):
                part = slice(start, stop)
                products.addmm_(x[:, part], y[:, part].T)
                for norm, rows in zip(norms, (x, y), strict=True):
                    norm += rows[:, part].square().sum(dim=1)
                lengths = [norm.clamp_min(1e-30).rsqrt() for norm in norms]
                cosines = lengths[0][:, None] * products * lengths[1]
                ranks = [reciprocal_ranks(part, self.positives).mean() for part in (cosines, cosines.T)]
                found[Setting(ridges, weight, stop)] = float(sum(ranks) / 2)
                start = stop
        return {key: found[key] for key in (Setting(ridges, w, number) for w in weights for number in directions)}


def choose(
    rows: CcaRows,
    pairs: ClosingPairs,
    ridges: Ridges | None,
    weight: float | None,
    num_directions: int | None,
    seed: int,
) -> Choice:
    """What is given as it is, and the rest by the mean MRR of folds.

    First one ridge for both modalities, then each modality's own beside the other's best, at the first weight with
    every number of directions; last the weight with the number of directions.
    """
    if ridges is not None and weight is not None and num_directions is not None:
        return Choice(Setting(ridges, weight, num_directions), rows.moments(), {})
    folds = group_folds(pairs.groups[pairs.train], NUM_FOLDS, seed)
    parts = [rows.moments(fold.held) for fold in folds]  # every row is read once for all folds
    views = views_of(rows, folds, parts, pairs.positives[pairs.train], seed)
    rank = min(min(view.across.shape) for view in views)
    directions = within(DIRECTIONS if num_directions is None else (num_directions,), rank)
    found: dict[Setting, float] = {}

    def best(options: Iterable[Ridges], weights: Sequence[float]) -> Setting:
        for option in options:
            if Setting(option, weights[-1], directions[0]) not in found:
                parts = [view.scores(option, weights, directions) for view in views]
                found.update({key: float(np.mean([part[key] for part in parts])) for key in parts[0]})
        return max(found, key=lambda key: found[key])

    first_weight = WEIGHTS[0] if weight is None else weight
    if ridges is None:
        ridges = best([(ridge, ridge) for ridge in RIDGES], [first_weight]).ridges
        ridges = best([(ridge, ridges[1]) for ridge in RIDGES], [first_weight]).ridges
        ridges = best([(ridges[0], ridge) for ridge in RIDGES], [first_weight]).ridges
    setting = best([ridges], WEIGHTS if weight is None else [weight])
    facts: dict[str, Any] = {
        **setting._asdict(),
        "folds": len(folds),
        "settings_tried": len(found),
        "held_out_MRR": found[setting],
    }
    facts["ridges"] = list(setting.ridges)
    return Choice(setting, summed(parts), facts)


def within(directions: Sequence[int], rank: int) -> list[int]:
    """The numbers of directions that there are; larger ones stand for all of them, once.

    >>> within((64, 128, 32, 16), 40)
    [40, 32, 16]
    """
    return list(dict.fromkeys(min(number, rank) for number in directions))


def views_of(
    rows: CcaRows, folds: Sequence[Fold], parts: Sequence[Moments], positives: np.ndarray, seed: int
) -> list[FoldView]:
    """The view of each fold, from the moments of the held rows of every fold."""
    return [
        FoldView(rows, summed([*parts[:number], *parts[number + 1 :]]), scored_rows(fold.held, seed), positives)
        for number, fold in enumerate(folds)
    ]
