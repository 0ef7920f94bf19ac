"""Procrustes: each modality is centred and mapped onto the anchor, by a rotation or by a shrunk least-squares map."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod, check_common
from gapless.closing.layers import AffineMap, affine_model
from gapless.closing.map_choice import best_option
from gapless.closing.moments import Moments, centred_product, column_mean, mean_of, moments_of
from gapless.core.errors import UsageError, unknown_name
from gapless.embeddings.stored_rows import Rows
from gapless.losses.pairs import ANCHOR, pairs_of

MAPS = ("orthogonal", "shrunk", "ridge")
ALPHAS = (1.0, 10.0, 0.1, 100.0, 0.01)
ROUNDING = 1e-10  # of the largest eigenvalue; smaller ones are directions in which the rows do not vary


@dataclass(frozen=True)
class ProcrustesSettings(ClosingSettings):
    """The settings of procrustes.

    Args:
        map: orthogonal is the best rotation; shrunk is the least-squares map drawn towards that rotation; ridge is the
            least-squares map drawn towards 0.
        alpha: how strongly it is drawn there, in units of the mean eigenvalue of the modality's covariance; default:
            what retrieves best in folds of the training rows that keep groups whole. An orthogonal map has none.
    """

    map: Literal["orthogonal", "shrunk", "ridge"] = "orthogonal"
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.map not in MAPS:
            raise unknown_name("map", self.map, MAPS)
        if self.alpha is not None and self.map == MAPS[0]:
            raise UsageError("alpha is of the maps shrunk and ridge; an orthogonal map has none")
        if self.alpha is not None and not 0 <= self.alpha < float("inf"):
            raise UsageError(f"alpha is a number of at least 0, got {self.alpha}")


class Procrustes:
    """Subtracts the means, then maps each modality onto the anchor; dims may differ."""

    name = "procrustes"
    summary = "subtract the means, then map each modality onto the anchor by the best orthogonal matrix"
    source = "Schoenemann, Psychometrika 31 (1966); ridge, Hoerl and Kennard, Technometrics 12 (1970)"
    settings = ProcrustesSettings
    takes_absent = True

    def fit(self, pairs: ClosingPairs, settings: ProcrustesSettings, seed: int, *, folder: Path) -> FittedMethod:
        check_common(pairs, pairs_of(ANCHOR, list(pairs.sizes), pairs.anchor))
        if settings.map == "orthogonal":
            return FittedMethod(affine_model(pairs, _orthogonal_maps(pairs)))
        maps: dict[str, AffineMap] = {}
        chosen: dict[str, Any] = {}
        for name in pairs.sizes:
            if name != pairs.anchor:
                alpha, facts = self.alpha_of(name, pairs, settings, seed)
                fitted = shrunk_maps(name, pairs, settings.map)(pairs.train)(alpha)
                maps |= fitted
                chosen |= {name: {"alpha": alpha, **facts}} if facts else {}
        ordered = {name: maps[name] for name in pairs.sizes}
        return FittedMethod(affine_model(pairs, ordered), {"chosen": chosen} if chosen else {})

    @staticmethod
    def alpha_of(
        name: str, pairs: ClosingPairs, settings: ProcrustesSettings, seed: int
    ) -> tuple[float, dict[str, Any]]:
        """The alpha of one modality, and how it was chosen; nothing where it is given."""
        if settings.alpha is not None:
            return settings.alpha, {}
        return best_option(pairs, ALPHAS, shrunk_maps(name, pairs, settings.map), seed)


def shrunk_maps(
    name: str, pairs: ClosingPairs, kind: str
) -> Callable[[np.ndarray], Callable[[float], dict[str, AffineMap]]]:
    """rows -> alpha -> the map of one modality, and of the anchor that is only centred."""

    def maps_of(rows: np.ndarray) -> Callable[[float], dict[str, AffineMap]]:
        matrices = pairs.embeddings[name], pairs.embeddings[pairs.anchor]
        common, own = pairs.common(rows, name, pairs.anchor), pairs.common(rows, pairs.anchor)
        means = mean_of(matrices[0], common), mean_of(matrices[1], common)
        solve = shrunk_map(moments_of(*matrices, means, common), kind)
        middle = means[1] if len(common) == len(own) else mean_of(matrices[1], own)
        shift = None if middle is means[1] else means[1] - middle
        anchor = AffineMap(middle, torch.eye(len(middle), dtype=torch.float64))
        return lambda alpha: {name: AffineMap(means[0], solve(alpha), shift), pairs.anchor: anchor}

    return maps_of


def _orthogonal_maps(pairs: ClosingPairs) -> dict[str, AffineMap]:
    """`fit_procrustes` of each modality on the rows that it has in common with the anchor.

    The anchor is centred by the mean of all its rows. A modality is centred by its mean over the common rows, and then
    moved to where the anchor's common rows lie: where the rows that have it are special ones, as those with an ECG are,
    their pairs still meet.
    """
    if pairs.present is None:
        return fit_procrustes(pairs.training_rows(), pairs.anchor)
    middle = column_mean(pairs.training_rows(pairs.anchor)[pairs.anchor])
    maps = {}
    for name in pairs.sizes:
        if name == pairs.anchor:
            maps[name] = AffineMap(middle, torch.eye(len(middle)))
            continue
        both = fit_procrustes(pairs.training_rows(name, pairs.anchor), pairs.anchor)
        maps[name] = both[name]._replace(shift=both[pairs.anchor].offset - middle)
    return maps


def shrunk_map(moments: Moments, kind: str) -> Callable[[float], Tensor]:
    """alpha -> `B = (C_zz + a I)^-1 (C_zw + a Q)`, [dim, dim of the anchor], with a = alpha times the mean eigenvalue.

    Q is the orthogonal map of the same rows ("shrunk"), or 0 ("ridge"). For a large alpha B is Q; at 0 it is the
    least-squares map, and Q in directions in which the rows do not vary.

    Args:
        moments: of the modality and the anchor.
        kind: shrunk or ridge.
    """
    values, vectors = torch.linalg.eigh(moments.covariance(0))
    across = moments.cross_covariance()
    left, _, right = torch.linalg.svd(across, full_matrices=False)
    target = vectors.T @ (left @ right) if kind == "shrunk" else torch.zeros_like(across)
    turned = vectors.T @ across
    varies = (values > ROUNDING * values[-1])[:, None]
    mean_value = values.clamp_min(0).mean()

    def solve(alpha: float) -> Tensor:
        strength = alpha * mean_value
        scale = torch.where(varies, values[:, None] + strength, torch.ones_like(values[:, None]))
        found: Tensor = vectors @ torch.where(varies, (turned + strength * target) / scale, target)
        return found

    return solve


def fit_procrustes(embeddings: Mapping[str, Rows], anchor: str) -> dict[str, AffineMap]:
    """Subtract the means, then map each modality onto the anchor by the nearest orthogonal matrix.

    With X and A the centred rows and X^T A = U S V^T, the rotation U V^T minimises ||X R - A||; where the dims differ
    it is a partial isometry, and the anchor's dim is that of the result.

    Args:
        embeddings: modality -> [pair, dim] unit-norm rows, aligned.
        anchor: the modality that is only centred.

    Reference: Schoenemann, Psychometrika 31 (1966).
    """
    target = embeddings[anchor]
    middle = mean_of(target)
    maps = {}
    for name, rows in embeddings.items():
        offset = column_mean(rows)
        if name == anchor:
            maps[name] = AffineMap(offset, torch.eye(rows.shape[1]))
            continue
        left, _, right = torch.linalg.svd(centred_product(rows, target, offset, middle), full_matrices=False)
        maps[name] = AffineMap(offset, (left @ right).float())
    return maps


METHOD = CLOSING_METHODS.add(Procrustes.name, Procrustes())
