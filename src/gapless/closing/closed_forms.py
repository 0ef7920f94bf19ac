"""Maps of frozen embeddings that need no training: subtract the means, rotate one modality onto another."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gapless.core.errors import UsageError


class Map(NamedTuple):
    """`(x - offset) @ rotation`, as the layer `affine` applies it."""

    offset: Tensor
    rotation: Tensor


def fit_center(embeddings: Mapping[str, Tensor], anchor: str) -> dict[str, Map]:
    """Subtract each modality's mean: the centroid distance before normalisation becomes 0, nothing else moves.

    Args:
        embeddings: modality -> [pair, dim] unit-norm rows, one dim.

    Raises:
        UsageError: dims that differ.

    Reference: Liang et al., "Mind the Gap", arXiv 2203.02053 (the translation, there only measured).
    """
    sizes = {name: rows.shape[1] for name, rows in embeddings.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UsageError(f"center keeps the dims, and they differ ({listed}); use --method procrustes or adapter")
    return {name: Map(rows.mean(dim=0), torch.eye(rows.shape[1])) for name, rows in embeddings.items()}


def fit_procrustes(embeddings: Mapping[str, Tensor], anchor: str) -> dict[str, Map]:
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
            maps[name] = Map(offset, torch.eye(rows.shape[1]))
            continue
        left, _, right = torch.linalg.svd((rows - offset).double().T @ target, full_matrices=False)
        maps[name] = Map(offset, (left @ right).float())
    return maps


CLOSED_FORMS: dict[str, Callable[[Mapping[str, Tensor], str], dict[str, Map]]] = {
    "center": fit_center,
    "procrustes": fit_procrustes,
}
