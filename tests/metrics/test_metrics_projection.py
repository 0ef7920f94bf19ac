"""The plane of the pictures: against scikit-learn, with fixed signs, true to distances."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from gapless.metrics.projection import principal_plane


def two_cones(num_pairs: int = 50, dim: int = 16) -> dict[str, Any]:
    """Unit-norm rows whose modalities stand apart along the first axis."""
    random = np.random.default_rng(0)
    shift = np.eye(dim)[0]
    rows = {name: random.normal(size=(num_pairs, dim)) / 2 for name in ("image", "text")}
    apart = {"image": rows["image"] + 2 * shift, "text": rows["text"] - 2 * shift}
    return {name: matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for name, matrix in apart.items()}


def test_the_plane_agrees_with_sklearn_up_to_signs() -> None:
    from sklearn.decomposition import PCA

    latent = two_cones()
    points, shares = principal_plane(latent)
    reference = PCA(2).fit(np.concatenate(list(latent.values())))
    expected = np.split(reference.transform(np.concatenate(list(latent.values()))), 2)
    for ours, theirs in zip(points.values(), expected, strict=True):
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    np.testing.assert_allclose(shares, reference.explained_variance_ratio_, atol=1e-9)


def test_the_first_modality_lies_left_whatever_the_order_of_rows() -> None:
    latent = two_cones()
    turned = {name: rows[::-1] for name, rows in latent.items()}
    for one in (latent, turned):
        points = principal_plane(one)[0]
        assert points["image"][:, 0].mean() < 0 < points["text"][:, 0].mean()
    np.testing.assert_allclose(principal_plane(turned)[0]["text"][::-1], principal_plane(latent)[0]["text"], atol=1e-9)


def test_points_of_a_plane_keep_their_distances() -> None:
    flat = {"image": np.array([[0.0, 0, 0], [3, 4, 0]]), "text": np.array([[6.0, 8, 0], [0, 5, 0]])}
    points = np.concatenate(list(principal_plane(flat)[0].values()))
    rows = np.concatenate(list(flat.values()))
    for i, j in product(range(4), repeat=2):
        assert np.linalg.norm(points[i] - points[j]) == pytest.approx(np.linalg.norm(rows[i] - rows[j]))


def test_one_pair_has_a_plane() -> None:
    points, shares = principal_plane({"image": np.ones((1, 1)), "text": -np.ones((1, 1))})
    assert points["image"].tolist() == [[-1.0, 0.0]]
    assert shares == [1.0, 0.0]
