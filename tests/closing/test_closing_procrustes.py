"""The shrunk maps of procrustes: what they are at both ends of alpha, against numpy's least squares."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gapless.closing.base import ClosingSettings
from gapless.closing.close import close_gap
from gapless.closing.moments import Moments, mean_of, moments_of
from gapless.closing.procrustes import ProcrustesSettings, fit_procrustes, shrunk_map
from gapless.core.errors import UsageError


def related(num_rows: int = 200, dims: tuple[int, int] = (9, 7), seed: int = 0) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 5))
    first, second = (
        hidden @ random.standard_normal((5, dim)) + 0.5 * random.standard_normal((num_rows, dim)) + 2 for dim in dims
    )
    return torch.from_numpy(first), torch.from_numpy(second)


def moments(z: Tensor, w: Tensor) -> Moments:
    return moments_of(z, w, (mean_of(z), mean_of(w)))


def test_a_large_alpha_is_the_rotation_and_for_ridge_nothing() -> None:
    z, w = related()
    rotation = fit_procrustes({"image": z, "text": w}, "text")["image"].rotation
    torch.testing.assert_close(shrunk_map(moments(z, w), "shrunk")(1e9).float(), rotation, atol=1e-6, rtol=0)
    assert shrunk_map(moments(z, w), "ridge")(1e9).abs().max() < 1e-6


def test_no_alpha_is_least_squares() -> None:
    z, w = related()
    expected = np.linalg.lstsq(z - z.mean(0), w - w.mean(0), rcond=None)[0]
    for kind in ("shrunk", "ridge"):
        np.testing.assert_allclose(shrunk_map(moments(z, w), kind)(0.0), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["shrunk", "ridge"])
def test_between_it_solves_the_normal_equations(kind: str) -> None:
    z, w = related()
    x, y = (z - z.mean(0)).numpy(), (w - w.mean(0)).numpy()
    strength = 0.7 * np.trace(x.T @ x) / 9
    left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
    target = left @ right if kind == "shrunk" else np.zeros((9, 7))
    expected = np.linalg.solve(x.T @ x + strength * np.eye(9), x.T @ y + strength * target)
    np.testing.assert_allclose(shrunk_map(moments(z, w), kind)(0.7), expected, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1e-3, 1.0, 100.0])
def test_a_rotation_of_the_same_rows_is_what_every_alpha_finds(alpha: float) -> None:
    w, _ = related(dims=(6, 6))
    turn = torch.from_numpy(np.linalg.qr(np.random.default_rng(3).standard_normal((6, 6)))[0])
    torch.testing.assert_close(shrunk_map(moments(w @ turn.T, w), "shrunk")(alpha), turn)


def test_fewer_rows_than_dims_interpolate_without_alpha_and_are_finite() -> None:
    z, w = related(num_rows=6, dims=(20, 7))
    solve = shrunk_map(moments(z, w), "ridge")
    torch.testing.assert_close((z - z.mean(0)) @ solve(0.0), w - w.mean(0))
    assert all(bool(solve(alpha).isfinite().all()) for alpha in (0.0, 0.1, 10.0))


def test_alpha_is_chosen_for_each_modality_and_said(tmp_path: Path) -> None:
    z, w = (rows.float().numpy() for rows in related())
    rows = {"image": z, "ecg": z[:, ::-1].copy(), "text": w}
    closed = close_gap(rows, settings=ProcrustesSettings(map="shrunk"), method="procrustes", out=tmp_path / "m")
    assert set(closed.results["chosen"]) == {"image", "ecg"}
    assert closed.results["chosen"]["image"]["alpha"] == closed.results["chosen"]["ecg"]["alpha"]
    given = close_gap(
        rows, settings=ProcrustesSettings(map="ridge", alpha=1.0), method="procrustes", out=tmp_path / "given"
    )
    assert "chosen" not in given.results


def test_the_orthogonal_map_is_the_default_and_plain_settings_stand_for_it(tmp_path: Path) -> None:
    z, w = (rows.float().numpy() for rows in related())
    rows = {"image": z, "text": w}
    default = close_gap(rows, method="procrustes", out=tmp_path / "default")
    plain = close_gap(rows, settings=ClosingSettings(anchor="text"), method="procrustes", out=tmp_path / "plain")
    assert default.results["settings"]["map"] == plain.results["settings"]["map"] == "orthogonal"
    assert torch.equal(default.model.encode("image", z), plain.model.encode("image", z))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="alpha is of the maps shrunk and ridge"):
        ProcrustesSettings(alpha=1.0)
    with pytest.raises(UsageError, match="alpha is a number of at least 0, got -1"):
        ProcrustesSettings(map="ridge", alpha=-1)
    with pytest.raises(UsageError, match="shrunk"):
        ProcrustesSettings(map="shrnk")  # type: ignore[arg-type]
