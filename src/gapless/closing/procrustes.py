"""Orthogonal Procrustes: each modality is centred and turned onto the anchor."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.layers import AffineMap, affine_model


class Procrustes:
    """Subtracts the means, then turns each modality onto the anchor; dims may differ."""

    name = "procrustes"
    summary = "subtract the means, then map each modality onto the anchor by the best orthogonal matrix"
    source = "Schoenemann, Psychometrika 31 (1966)"
    settings = ClosingSettings

    def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
        return FittedMethod(affine_model(pairs, fit_procrustes(pairs.training, pairs.anchor)))


def fit_procrustes(embeddings: Mapping[str, Tensor], anchor: str) -> dict[str, AffineMap]:
    """Subtract the means, then map each modality onto the anchor by the nearest orthogonal matrix.

    With X and A the centred rows and X^T A = U S V^T, the rotation U V^T minimises ||X R - A||; where the dims differ
    it is a partial isometry, and the anchor's dim is that of the result.

    Args:
        embeddings: modality -> [pair, dim] unit-norm rows, aligned.
        anchor: the modality that is only centred.

    Reference: Schoenemann, Psychometrika 31 (1966).
    """
    target = embeddings[anchor].double()
    target = target - target.mean(dim=0)
    maps = {}
    for name, rows in embeddings.items():
        offset = rows.mean(dim=0)
        if name == anchor:
            maps[name] = AffineMap(offset, torch.eye(rows.shape[1]))
            continue
        left, _, right = torch.linalg.svd((rows - offset).double().T @ target, full_matrices=False)
        maps[name] = AffineMap(offset, (left @ right).float())
    return maps


METHOD = CLOSING_METHODS.add(Procrustes.name, Procrustes())
