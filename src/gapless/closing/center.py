"""Centring: the mean of each modality is subtracted from its rows."""

from collections.abc import Mapping
from pathlib import Path

import torch

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod, one_dim
from gapless.closing.layers import AffineMap, affine_model
from gapless.closing.moments import column_mean
from gapless.embeddings.stored_rows import Rows


class Center:
    """Subtracts each modality's mean; one dim for all modalities."""

    name = "center"
    summary = "subtract each modality's mean; nothing is trained, one dim for all"
    source = "Liang et al., Mind the Gap, arXiv 2203.02053 (the translation, there only measured)"
    settings = ClosingSettings
    takes_absent = True

    def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
        one_dim(pairs, self.name)
        return FittedMethod(affine_model(pairs, fit_center(pairs.training_rows())))


def fit_center(embeddings: Mapping[str, Rows]) -> dict[str, AffineMap]:
    """Subtract each modality's mean: the centroid distance before normalisation becomes 0, nothing else moves.

    Args:
        embeddings: modality -> [row, dim] unit-norm rows, each modality's own.

    Reference: Liang et al., "Mind the Gap", arXiv 2203.02053 (the translation, there only measured).
    """
    return {name: AffineMap(column_mean(rows), torch.eye(rows.shape[1])) for name, rows in embeddings.items()}


METHOD = CLOSING_METHODS.add(Center.name, Center())
