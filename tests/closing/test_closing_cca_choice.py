"""What CCA chooses by held-out groups: the same as fitting each setting plainly, and nothing of shuffled pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gapless.closing.base import ClosingPairs
from gapless.closing.cca import CcaSettings, fit_cca
from gapless.closing.cca_choice import CcaRows, choose, views_of
from gapless.closing.close import close_gap
from gapless.closing.folds import group_folds, mean_reciprocal_rank
from gapless.closing.moments import mean_of, moments_of
from gapless.core.errors import UsageError


def related(num_rows: int = 150, dims: tuple[int, int] = (12, 8), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two modalities that see the same 4 numbers, and much noise of their own."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 4))
    parts = [
        hidden @ random.standard_normal((4, dim)) + 1.5 * random.standard_normal((num_rows, dim)) + 2 for dim in dims
    ]
    return torch.from_numpy(parts[0]), torch.from_numpy(parts[1])


def pairs_of(z: Tensor, w: Tensor, groups: np.ndarray | None = None) -> ClosingPairs:
    index = np.arange(len(z))
    names = [str(row) for row in index]
    return ClosingPairs(
        {"image": z, "text": w}, "text", names, index, index[:2], index, index if groups is None else groups
    )


@pytest.mark.parametrize("dims", [(12, 8), (8, 12), (400, 330)])
def test_the_score_of_a_setting_is_that_of_a_plain_fit_without_the_fold(dims: tuple[int, int]) -> None:
    z, w = related(dims=dims)
    pairs = pairs_of(z, w, np.arange(150) // 2)
    rows = CcaRows.of(z, w, pairs.train)
    folds = group_folds(pairs.groups, 3, seed=0)
    views = views_of(rows, folds, [rows.moments(fold.held) for fold in folds], pairs.positives, seed=0)
    for fold, view in zip(folds, views, strict=True):
        scores = view.scores((0.3, 2.0), [0.5, 1.0], [2, 6])
        for setting, score in scores.items():
            plain = fit_cca(z[fold.fit], w[fold.fit], (0.3, 2.0))
            kept = slice(setting.num_directions)
            factor = plain.correlations[kept] ** setting.weight
            x = (z[fold.held] - z[fold.fit].mean(0)) @ plain.first[:, kept] * factor
            y = (w[fold.held] - w[fold.fit].mean(0)) @ plain.second[:, kept] * factor
            assert score == pytest.approx(mean_reciprocal_rank(x, y, torch.from_numpy(fold.held)), abs=2e-3)


def test_moments_of_blocks_are_the_covariances_and_can_be_added() -> None:
    z, w = related(num_rows=5000)
    origins = mean_of(z), mean_of(w)
    whole = moments_of(z, w, origins)
    both = moments_of(z, w, origins, np.arange(1700)) + moments_of(z, w, origins, np.arange(1700, 5000))
    expected = np.cov(np.hstack([z, w]), rowvar=False, bias=True)
    for moments in (whole, both):
        np.testing.assert_allclose(moments.covariance(0), expected[:12, :12], atol=1e-12)
        np.testing.assert_allclose(moments.covariance(1), expected[12:, 12:], atol=1e-12)
        np.testing.assert_allclose(moments.cross_covariance(), expected[:12, 12:], atol=1e-12)


def test_given_numbers_are_not_chosen_and_a_given_one_stays(tmp_path: Path) -> None:
    z, w = (rows.float() for rows in related())
    arrays = {"image": z, "text": w}
    explicit = CcaSettings(ridge=1.0, weight=1.0, num_directions=3)
    given = close_gap(arrays, settings=explicit, method="cca", out=tmp_path / "a")
    assert "chosen" not in given.results
    half = close_gap(arrays, settings=CcaSettings(weight=0.5), method="cca", out=tmp_path / "b").results["chosen"]
    assert half["weight"] == 0.5
    assert half["folds"] == 5
    assert 0 < half["held_out_MRR"] < 1


def test_noise_in_many_dims_wants_a_larger_ridge_than_clean_rows() -> None:
    """With fewer rows than dims, plain CCA learns the pairs by heart; clean rows in few dims need no ridge."""
    chosen = {}
    for name, dims, rows in (("noisy", (200, 150), 120), ("clean", (6, 5), 2000)):
        z, w = related(rows, dims)
        pairs = pairs_of(z, w)
        chosen[name] = choose(CcaRows.of(z, w, pairs.train), pairs, None, 1.0, None, 0)
    assert sum(chosen["noisy"].setting.ridges) > sum(chosen["clean"].setting.ridges)


def test_shuffled_pairs_score_as_chance() -> None:
    z, w = related(600)
    shuffled = w[torch.from_numpy(np.random.default_rng(0).permutation(600))]
    held_out = {
        name: choose(CcaRows.of(z, other, np.arange(600)), pairs_of(z, other), None, None, None, 0).facts[
            "held_out_MRR"
        ]
        for name, other in (("true", w), ("shuffled", shuffled))
    }
    chance = float(np.mean([1 / rank for rank in range(1, 121)]))
    assert held_out["shuffled"] < 1.6 * chance  # the best of many settings is a little above it
    assert held_out["true"] > 3 * chance


def test_a_ridge_for_each_modality() -> None:
    z, w = related()
    swapped = fit_cca(w, z, (2.0, 0.1)).correlations
    torch.testing.assert_close(fit_cca(z, w, (0.1, 2.0)).correlations, swapped)
    assert not torch.allclose(fit_cca(z, w, (2.0, 0.1)).correlations, swapped)
    with pytest.raises(UsageError, match="one for each of two modalities, got 3"):
        CcaSettings(ridge=(1.0, 2.0, 3.0))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ridge is a number of at least 0, got -2"):
        CcaSettings(ridge=(1.0, -2.0))


def test_two_groups_and_duplicated_columns_are_defined() -> None:
    z, w = related(40)
    z = torch.cat([z, z, torch.ones(40, 1, dtype=z.dtype)], dim=1)  # rank-deficient, and a constant column
    choice = choose(CcaRows.of(z, w, np.arange(40)), pairs_of(z, w, np.arange(40) % 2), None, None, None, 0)
    assert choice.facts["folds"] == 2
    assert np.isfinite(choice.facts["held_out_MRR"])
