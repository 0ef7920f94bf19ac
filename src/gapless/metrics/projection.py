"""Projection of embeddings to two dimensions, for plots."""

from collections.abc import Mapping

import numpy as np


def principal_plane(latent: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[float]]:
    """The two first principal components of all modalities together.

    Args:
        latent: one [row, dim] matrix per modality; they may have different numbers of rows.

    Returns:
        [row, 2] per modality, centred, signs fixed (the first modality to the left, the largest loading of the second
        component positive), and the share of the variance that each component explains, in [0, 1].

    >>> plane, shares = principal_plane({"image": np.eye(3), "text": -np.eye(3)})
    >>> plane["image"].shape, len(shares)
    ((3, 2), 2)
    """
    rows = np.concatenate([np.asarray(matrix, dtype=np.float64) for matrix in latent.values()])
    centred = rows - rows.mean(axis=0)
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    components = np.concatenate([components, np.zeros((2, rows.shape[1]))])[:2]
    points = centred @ components.T
    ends = np.cumsum([len(matrix) for matrix in latent.values()])
    first = points[: ends[0], 0].mean() if ends[0] else 0.0
    points[:, 0] *= -1 if first > 0 else 1
    points[:, 1] *= -1 if components[1].max() < -components[1].min() else 1
    total = float((singular**2).sum()) or 1.0
    shares = [float(value) ** 2 / total for value in [*singular, 0.0, 0.0][:2]]
    return dict(zip(latent, np.split(points, ends[:-1]), strict=True)), shares
