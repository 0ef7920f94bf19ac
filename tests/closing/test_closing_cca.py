"""Canonical correlation analysis: values known beforehand, invariances, and what plain CCA gets wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gapless.closing.base import closing_method
from gapless.closing.cca import CcaSettings, fit_cca
from gapless.closing.close import close_gap
from gapless.closing.procrustes import Procrustes
from gapless.core.errors import UsageError


def rows_of(num_rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((num_rows, dim)))


def related(num_rows: int = 300, dims: tuple[int, int] = (12, 8), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two modalities that see the same 4 numbers, and noise of their own."""
    hidden = rows_of(num_rows, 4, seed)
    return tuple(
        hidden @ rows_of(4, dim, 90 + part) + 0.5 * rows_of(num_rows, dim, seed + part + 1) + 2
        for part, dim in enumerate(dims)
    )


def test_a_modality_correlates_with_itself_fully() -> None:
    z = rows_of(100, 6)
    torch.testing.assert_close(fit_cca(z, z, 0.0).correlations, torch.ones(6, dtype=torch.float64))
    assert fit_cca(z, z, 1.0).correlations.max() < 0.7  # the ridge shrinks


def test_two_columns_correlate_as_the_textbook_says() -> None:
    z, w = rows_of(50, 1), rows_of(50, 1, 1)
    expected = abs(np.corrcoef(z[:, 0], w[:, 0])[0, 1])
    assert float(fit_cca(z, w, 0.0).correlations[0]) == pytest.approx(expected)


def test_without_a_ridge_no_invertible_map_matters() -> None:
    z, w = related()
    mapped = z @ rows_of(12, 12, 5) + 3, w @ rows_of(8, 8, 6) - 1
    torch.testing.assert_close(fit_cca(*mapped, 0.0).correlations, fit_cca(z, w, 0.0).correlations)
    assert not torch.allclose(fit_cca(*mapped, 1.0).correlations, fit_cca(z, w, 1.0).correlations)  # the control


def test_a_ridge_is_relative_to_the_rows() -> None:
    z, w = related()
    torch.testing.assert_close(fit_cca(1000 * z, w / 1000, 0.5).correlations, fit_cca(z, w, 0.5).correlations)


def test_the_canonical_variables_are_white_and_correlate_pair_by_pair() -> None:
    z, w = related()
    found = fit_cca(z, w, 0.0)
    x, y = (z - z.mean(0)) @ found.first, (w - w.mean(0)) @ found.second
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(x.T @ y / len(x), torch.diag(found.correlations))


def held_out_correlation(z: Tensor, w: Tensor) -> float:
    found = fit_cca(z[:200], w[:200], 0.0)
    x = (z[200:] - z[:200].mean(0)) @ found.first[:, 0]
    y = (w[200:] - w[:200].mean(0)) @ found.second[:, 0]
    return float(np.corrcoef(x, y)[0, 1])


def test_shuffled_pairs_correlate_with_nothing_that_was_held_out() -> None:
    z, w = related(num_rows=3200)
    shuffled = w[torch.from_numpy(np.random.default_rng(0).permutation(len(w)))]
    assert abs(held_out_correlation(z, shuffled)) < 0.08
    assert held_out_correlation(z, w) > 0.8  # the control


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_fewer_rows_than_dims_stay_finite(ridge: float) -> None:
    found = fit_cca(rows_of(10, 40), rows_of(10, 30, 1), ridge)
    assert len(found.correlations) == 9  # ten centred rows have nine directions
    assert all(torch.isfinite(part).all() for part in (found.first, found.second))
    if not ridge:
        torch.testing.assert_close(found.correlations, torch.ones(9, dtype=torch.float64))  # plain CCA overfits


def test_the_directions_are_weighted_by_their_correlations(tmp_path: Path) -> None:
    z, w = (rows.float() for rows in related())
    spread = {}
    for weight in (0.0, 1.0):
        settings = CcaSettings(ridge=0.1, weight=weight, num_directions=6)
        closed = close_gap({"image": z, "text": w}, settings=settings, method="cca", out=tmp_path / str(weight))
        assert closed.model.config.embedding_dim == 6
        spread[weight] = closed.figures["gap/true_pair_cosine"]
    assert spread[1.0] > spread[0.0] + 0.05
    assert len(closed.results["correlations"]) == 6
    assert closed.results["correlations"] == sorted(closed.results["correlations"], reverse=True)


def test_what_it_cannot_take_is_refused(tmp_path: Path) -> None:
    z, w = (rows.float() for rows in related())
    with pytest.raises(UsageError, match="two modalities, got 3 \\(image, text, ecg\\)"):
        close_gap({"image": z, "text": w, "ecg": w}, method="cca", out=tmp_path / "m")
    with pytest.raises(UsageError, match="ridge is a number of at least 0, got -1"):
        CcaSettings(ridge=-1)
    with pytest.raises(UsageError, match="num_directions is at least 1, got 0"):
        CcaSettings(num_directions=0)
    with pytest.raises(ValueError, match="cca takes CcaSettings, got ProcrustesSettings"):
        close_gap({"image": z, "text": w}, settings=Procrustes.settings(), method="cca", out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_heads_is_another_name_of_the_adapter() -> None:
    assert closing_method("heads") is closing_method("adapter")
