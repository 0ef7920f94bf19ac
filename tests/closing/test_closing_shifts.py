"""standardise, shift and subspace: values known beforehand, and the settings at which each is another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gapless.closing.base import ClosingPairs, ClosingSettings, closing_method
from gapless.closing.center import fit_center
from gapless.closing.close import close_gap
from gapless.closing.fitting import fit_method
from gapless.closing.layers import layers_of
from gapless.closing.map_choice import apply_map, best_option
from gapless.closing.shift import ShiftSettings, gap_offsets, shift_maps
from gapless.closing.standardise import StandardiseSettings, fit_standardise
from gapless.closing.subspace import SubspaceSettings
from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import unit_norm


def pairs_of(names: tuple[str, ...] = ("image", "text"), num_rows: int = 120, dim: int = 10) -> ClosingPairs:
    """Modalities in cones of their own that see the same 3 numbers."""
    random = np.random.default_rng(len(names))
    hidden = random.standard_normal((num_rows, 3)) @ random.standard_normal((3, dim))
    rows = {}
    for name in names:
        noisy = hidden + 0.5 * random.standard_normal((num_rows, dim)) + 2 * random.standard_normal(dim)
        rows[name] = unit_norm(torch.from_numpy(noisy)).float()
    index = np.arange(num_rows)
    return ClosingPairs(rows, names[-1], list(map(str, index)), index[:100], index[100:], index, index)


def fitted_rows(method: str, settings: ClosingSettings, pairs: ClosingPairs, folder: Path) -> dict[str, Tensor]:
    model = fit_method(closing_method(method), pairs, settings, 0, folder=folder).model
    return {name: model.encode(name, rows, batch_size=1000) for name, rows in pairs.embeddings.items()}


def test_standardised_training_rows_have_mean_0_and_deviation_1() -> None:
    rows = pairs_of().training
    for name, fitted in fit_standardise(rows, floor=0.01).items():
        mapped = apply_map(fitted, rows[name])
        torch.testing.assert_close(mapped.mean(dim=0), torch.zeros(10), atol=1e-5, rtol=0)
        torch.testing.assert_close(mapped.std(dim=0, correction=0), torch.ones(10))


def test_numbers_that_spread_alike_are_only_centred() -> None:
    base = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) + 5
    standard, centred = fit_standardise({"a": base}, floor=0.1)["a"], fit_center({"a": base})["a"]
    torch.testing.assert_close(apply_map(standard, base), apply_map(centred, base))
    wider = base * torch.tensor([1.0, 3.0])  # the control
    mapped = apply_map(fit_standardise({"a": wider}, floor=0.1)["a"], wider)
    assert not torch.allclose(unit_norm(mapped), unit_norm(wider - wider.mean(0)))


def test_a_constant_number_becomes_0_and_a_quiet_one_is_not_blown_up() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-4, 0.0]) + 0.5
    mapped = apply_map(fit_standardise({"a": rows}, floor=0.1)["a"], rows)
    assert mapped[:, 2].abs().max() < 1e-5
    assert mapped[:, 1].abs().max() < 0.01
    assert torch.isfinite(mapped).all()


def test_half_a_shift_is_that_of_the_paper_and_none_is_the_identity(tmp_path: Path) -> None:
    pairs = pairs_of()
    z, w = (rows.double() for rows in pairs.training.values())
    gap = z.mean(0) - w.mean(0)
    maps = shift_maps(gap_offsets(pairs, pairs.train), 0.6, "along")
    torch.testing.assert_close(apply_map(maps["image"], z), (z - 0.3 * gap).float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(apply_map(maps["text"], w), (w + 0.3 * gap).float(), atol=1e-6, rtol=1e-5)
    for how in ("along", "orthogonal"):
        same = fitted_rows("shift", ShiftSettings(amount=0.0, how=how), pairs, tmp_path)  # type: ignore[arg-type]
        for name, rows in pairs.embeddings.items():
            torch.testing.assert_close(same[name], rows, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("names", [("image", "text"), ("image", "ecg", "text")])
def test_the_whole_shift_makes_the_means_meet(names: tuple[str, ...]) -> None:
    pairs = pairs_of(names)
    maps = shift_maps(gap_offsets(pairs, pairs.train), 1.0, "along")
    means = torch.stack([apply_map(maps[name], rows).mean(dim=0) for name, rows in pairs.training.items()])
    torch.testing.assert_close(means, means[:1].expand_as(means), atol=1e-6, rtol=1e-5)
    assert means[0].norm() > 0.05  # they meet between the modalities, not at 0 as centred ones do


@pytest.mark.parametrize("names", [("image", "text"), ("image", "ecg", "text")])
def test_taking_out_the_gap_twice_is_taking_it_out_once(names: tuple[str, ...]) -> None:
    pairs = pairs_of(names)
    offsets = gap_offsets(pairs, pairs.train)
    rotation = shift_maps(offsets, 1.0, "orthogonal")["text"].rotation
    torch.testing.assert_close(rotation @ rotation, rotation)
    assert float(rotation.trace()) == pytest.approx(10 - (len(names) - 1))
    for offset in offsets.values():
        assert (offset @ rotation).abs().max() < 1e-9
    half = shift_maps(offsets, 0.5, "orthogonal")["text"].rotation
    assert not torch.allclose(half @ half, half)  # the control


@pytest.mark.parametrize(
    "settings", [SubspaceSettings(num_directions=10), SubspaceSettings(how="drop", num_directions=0)]
)
def test_the_whole_space_is_centring(settings: SubspaceSettings, tmp_path: Path) -> None:
    pairs = pairs_of()
    centred = fitted_rows("center", ClosingSettings(), pairs, tmp_path)
    whole = fitted_rows("subspace", settings, pairs, tmp_path)
    torch.testing.assert_close(
        whole["image"] @ whole["text"].T, centred["image"] @ centred["text"].T, atol=1e-5, rtol=0
    )
    fewer = fitted_rows("subspace", SubspaceSettings(num_directions=3), pairs, tmp_path)
    assert fewer["image"].shape == (120, 3)
    assert (fewer["image"] @ fewer["text"].T - centred["image"] @ centred["text"].T).abs().max() > 0.05


def test_the_numbers_of_the_gap_are_dropped() -> None:
    rows = {
        name: unit_norm(torch.rand(60, 6, generator=torch.Generator().manual_seed(part)))
        for part, name in enumerate(("image", "text"))
    }
    rows["image"][:, 4] += 3.0
    index = np.arange(60)
    pairs = ClosingPairs(rows, "text", list(map(str, index)), index, index[:2], index, index)
    settings = SubspaceSettings(how="drop", num_directions=1)
    fitted = fit_method(closing_method("subspace"), pairs, settings, 0, folder=Path())
    rotation = layers_of(fitted.model, "image")[1].weights["rotation"]
    assert rotation.shape == (6, 5)
    assert rotation[4].abs().max() == 0
    assert rotation.abs().sum() == 5


def test_the_principal_directions_are_those_of_all_modalities_together(tmp_path: Path) -> None:
    pairs = pairs_of()
    stacked = np.vstack([(rows - rows.mean(dim=0)).numpy() for rows in pairs.training.values()])
    expected = np.linalg.svd(stacked.astype(np.float64), full_matrices=False)[2][:2]
    head = fit_method(closing_method("subspace"), pairs, SubspaceSettings(num_directions=2), 0, folder=tmp_path).model
    found = layers_of(head, "image")[1].weights["rotation"].T.numpy()
    np.testing.assert_allclose(np.abs(found @ expected.T), np.eye(2), atol=1e-4)


def test_what_is_not_given_is_chosen_and_said(tmp_path: Path) -> None:
    rows = {name: one.numpy() for name, one in pairs_of(("image", "ecg", "text")).embeddings.items()}
    for method, key in (("shift", "amount"), ("subspace", "num_directions")):
        chosen = close_gap(rows, method=method, out=tmp_path / method).results["chosen"]
        assert {key, "folds", "settings_tried", "held_out_MRR"} == set(chosen)
        assert chosen["folds"] == 5


def test_the_best_option_is_the_one_that_retrieves_and_the_first_of_equals() -> None:
    pairs = pairs_of()
    centred = fit_center(pairs.training)

    def maps_of(rows: np.ndarray) -> Any:
        broken = {**centred, "image": centred["image"]._replace(rotation=torch.zeros(10, 10))}
        return lambda option: {"broken": broken, "good": centred, "again": centred}[option]

    best, facts = best_option(pairs, ["broken", "good", "again"], maps_of, 0)
    assert best == "good"
    assert facts["settings_tried"] == 3


@pytest.mark.parametrize("method", ["standardise", "shift", "subspace"])
def test_dims_that_differ_and_one_group_are_refused(method: str, tmp_path: Path) -> None:
    rows = {name: one.numpy() for name, one in pairs_of().embeddings.items()}
    with pytest.raises(UsageError, match=f"{method} keeps the dims, and they differ \\(image 10, text 7\\)"):
        close_gap({**rows, "text": rows["text"][:, :7]}, method=method, out=tmp_path / "m")
    with pytest.raises(DataRefused, match="groups are needed"):
        close_gap(rows, np.zeros(120, dtype=int), method=method, out=tmp_path / "m")


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        (ShiftSettings, {"amount": 3}, "amount is a number from 0 to 2, got 3"),
        (ShiftSettings, {"amount": float("nan")}, "amount is a number from 0 to 2"),
        (ShiftSettings, {"how": "alnog"}, "along"),
        (SubspaceSettings, {"num_directions": 0}, "num_directions is at least 1, got 0"),
        (SubspaceSettings, {"how": "kepe"}, "keep"),
        (StandardiseSettings, {"floor": 0}, "floor is a number above 0, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings(**options)


def test_more_directions_than_numbers_are_refused(tmp_path: Path) -> None:
    rows = {name: one.numpy() for name, one in pairs_of().embeddings.items()}
    for settings in (SubspaceSettings(num_directions=11), SubspaceSettings(how="drop", num_directions=10)):
        with pytest.raises(UsageError, match="rows have 10 numbers; one at least must stay"):
            close_gap(rows, settings=settings, method="subspace", out=tmp_path / "m")
