"""`auto`: candidates fitted outside folds of whole groups and judged on them; the purpose says which is taken."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapless.closing.auto import AutoSettings
from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod
from gapless.closing.cca import CcaSettings
from gapless.closing.center import Center
from gapless.closing.close import close_gap, pairs_of
from gapless.closing.judging import KEYS, folds_of
from gapless.closing.layers import activation_layer, affine_layer, vector_model
from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_json

QUICK = AutoSettings(methods=("center", "procrustes"), num_folds=3, num_repeats=1, num_bootstrap=40)


def two_modalities(num_rows: int = 240, seed: int = 0) -> dict[str, np.ndarray]:
    """Texts that are images turned by a rotation, with noise, and a shift of every row."""
    random = np.random.default_rng(seed)
    image = random.standard_normal((num_rows, 12))
    turn = np.linalg.qr(random.standard_normal((12, 12)))[0]
    text = image @ turn + 0.3 * random.standard_normal(image.shape)
    return {"image": (image + 2).astype(np.float32), "text": (text - 2).astype(np.float32)}


def groups_of(num_rows: int = 240, size: int = 3) -> np.ndarray:
    return np.repeat(np.arange(num_rows // size), size)


def pairs(num_rows: int = 240, size: int = 3) -> ClosingPairs:
    return pairs_of(two_modalities(num_rows), groups_of(num_rows, size), QUICK, 0, None, None, None, None)[0]


def test_the_method_that_undoes_the_rotation_is_taken(tmp_path: Path) -> None:
    closed = close_gap(two_modalities(), groups_of(), QUICK, out=tmp_path / "m")
    choice = closed.results["choice"]
    assert (choice["method"], closed.results["method"]) == ("procrustes", "auto")
    values = {one["name"]: one["figures"]["retrieval/mean/MRR"]["value"] for one in choice["candidates"]}
    assert values["procrustes"] > 3 * values["center"]
    alone = close_gap(two_modalities(), groups_of(), method="procrustes", out=tmp_path / "p")
    assert closed.figures["retrieval/mean/R@1"] == pytest.approx(alone.figures["retrieval/mean/R@1"], abs=0.1)


def test_every_candidate_has_figures_with_intervals_beside_the_embeddings_as_they_are(tmp_path: Path) -> None:
    closed = close_gap(two_modalities(), groups_of(), QUICK, labels=list("ab") * 120, out=tmp_path / "m")
    candidates = closed.results["choice"]["candidates"]
    assert [(one["name"], one["is_reference"]) for one in candidates] == [
        ("as they are", True),
        ("center", False),
        ("procrustes", False),
    ]
    for one in candidates:
        assert list(one["figures"]) == list(KEYS)
        for key, figure in one["figures"].items():
            assert figure["low"] <= figure["value"] <= figure["high"], key
    assert read_json(tmp_path / "m" / "results.json")["choice"] == closed.results["choice"]


def test_a_fold_shares_no_group_with_what_is_fitted_or_chosen_on() -> None:
    own = pairs()
    judged: list[int] = []
    for part in folds_of(own, 5, 1, 0.1, 20, seed=0):
        parts = [set(own.groups[rows]) for rows in (part.pairs.train, part.pairs.validation, part.judged)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert part.draws.shape == (20, len(parts[2]))
        judged += part.judged.tolist()
    assert sorted(judged) == sorted(own.train)  # the rows of the figures judge nothing
    assert not set(judged) & set(own.validation)


class Leaky:
    """A method that notes which rows it was given, and gives back the rows as they are."""

    name = "leaky"
    summary = source = ""
    settings = ClosingSettings

    def __init__(self) -> None:
        self.rows: list[tuple[set[int], set[int]]] = []

    def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
        self.rows.append((set(pairs.train.tolist()), set(pairs.validation.tolist())))
        return Center().fit(pairs, settings, seed, folder=folder)


def test_the_rows_of_the_figures_take_no_part_in_any_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Leaky()
    monkeypatch.setitem(CLOSING_METHODS._things, "leaky", method)
    close_gap(two_modalities(), groups_of(), replace(QUICK, methods=("leaky",)), out=tmp_path / "m")
    held = set(pairs().validation.tolist())
    assert held
    assert len(method.rows) == 3 + 1  # folds, and the last fit
    assert not any((train | validation) & held for train, validation in method.rows)


class Fails:
    """A method that cannot be fitted."""

    name = "fails"
    summary = source = ""
    settings = ClosingSettings

    def __init__(self, error: Exception) -> None:
        self.error = error

    def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
        raise self.error


@pytest.mark.parametrize("kind", [DataRefused, np.linalg.LinAlgError, ValueError, RuntimeError])
def test_a_candidate_that_fails_is_a_row_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    monkeypatch.setitem(CLOSING_METHODS._things, "fails", Fails(kind("no")))
    closed = close_gap(two_modalities(), groups_of(), replace(QUICK, methods=("fails", "center")), out=tmp_path / "m")
    by_name = {one["name"]: one for one in closed.results["choice"]["candidates"]}
    assert by_name["fails"]["figures"] == {}
    assert "no" in by_name["fails"]["reason"]
    assert closed.results["choice"]["name"] == "center"
    with pytest.raises(DataRefused, match=r"no closing method could be fitted.*fails"):
        close_gap(two_modalities(), groups_of(), replace(QUICK, methods=("fails",)), out=tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_an_interrupted_choice_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = close_gap(two_modalities(), groups_of(), QUICK, out=tmp_path / "whole").results
    fits = {"count": 0}
    fit = Center.fit

    def counted(self: Center, *args: Any, **options: Any) -> FittedMethod:
        fits["count"] += 1
        if fits["count"] == 3:
            raise KeyboardInterrupt
        return fit(self, *args, **options)

    monkeypatch.setattr(Center, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        close_gap(two_modalities(), groups_of(), QUICK, out=tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.resume", "whole"]
    with pytest.raises(UsageError, match="another call"):
        close_gap(two_modalities(seed=1), groups_of(), QUICK, out=tmp_path / "m")
    again = close_gap(two_modalities(), groups_of(), QUICK, out=tmp_path / "m").results
    assert fits["count"] == 4  # the third fold, whose fit was interrupted; procrustes was taken and fitted last
    assert not (tmp_path / ".m.resume").exists()
    assert again["figures"] == whole["figures"]
    for before, after in zip(whole["choice"]["candidates"], again["choice"]["candidates"], strict=True):
        assert before["figures"] == after["figures"]


def test_a_truncated_note_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, work = tmp_path / "m", tmp_path / ".m.resume"
    with monkeypatch.context() as patched:
        patched.setattr("gapless.closing.auto.choose", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            close_gap(two_modalities(), groups_of(), QUICK, out=out)
    notes = sorted(path for path in work.iterdir() if path.name.startswith("center"))
    assert len(notes) == 3
    notes[0].write_text(notes[0].read_text()[:40])
    closed = close_gap(two_modalities(), groups_of(), QUICK, out=out)
    whole = close_gap(two_modalities(), groups_of(), QUICK, out=tmp_path / "whole")
    assert closed.figures == whole.figures


def test_no_time_leaves_the_first_candidate_and_says_why_the_others_are_missing(tmp_path: Path) -> None:
    closed = close_gap(two_modalities(), groups_of(), replace(QUICK, seconds=1e-6), out=tmp_path / "m")
    center, procrustes = closed.results["choice"]["candidates"][1:]
    assert closed.results["choice"]["name"] == "center"
    assert center["figures"]
    assert "no time" in procrustes["reason"]


def test_the_same_seed_gives_the_same_choice_to_the_bit(tmp_path: Path) -> None:
    first, second = (
        close_gap(two_modalities(), groups_of(), QUICK, out=tmp_path / name).results["choice"] for name in "ab"
    )
    for one in (*first["candidates"], *second["candidates"]):
        del one["seconds"]
    assert first == second


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"purpose": "beauty"}, "unknown purpose 'beauty'; known: balanced, captions"),
        ({"methods": ("magic",)}, "unknown closing method 'magic'"),
        ({"methods": ("auto",)}, "auto chooses among the others"),
        ({"seconds": -1.0}, "seconds is a number of at least 0"),
        ({"num_folds": 1}, "at least 2 folds"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        close_gap(two_modalities(), groups_of(), replace(QUICK, **settings), out=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_few_groups_are_dealt_out_again(tmp_path: Path) -> None:
    few = close_gap(two_modalities(), groups_of(size=24), replace(QUICK, num_repeats=None), out=tmp_path / "m")
    assert few.results["choice"]["folds"] == 9
    with pytest.raises(DataRefused, match="at least 4 groups"):
        close_gap(two_modalities(), np.zeros(240, dtype=int), QUICK, out=tmp_path / "n")


def test_more_folds_than_groups_are_as_many_as_groups(tmp_path: Path) -> None:
    settings = replace(QUICK, num_folds=50)
    closed = close_gap(two_modalities(), groups_of(size=20), settings, out=tmp_path / "m")
    assert closed.results["choice"]["folds"] == closed.results["rows"]["train"] // 20 < 12


def test_the_method_follows_from_the_settings(tmp_path: Path) -> None:
    settings = CcaSettings(ridge=1.0, weight=1.0, num_directions=4)
    assert close_gap(two_modalities(), groups_of(), settings, out=tmp_path / "m").results["method"] == "cca"


def test_a_stack_builds_on_the_fits_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[int, ...]] = []
    fit = Center.fit

    def counted(self: Center, pairs: ClosingPairs, *args: Any, **options: Any) -> FittedMethod:
        fits.append(tuple(pairs.train.tolist()))
        return fit(self, pairs, *args, **options)

    monkeypatch.setattr(Center, "fit", counted)
    stack = CLOSING_METHODS["stack"]
    both = stack.settings(methods="center,procrustes")
    monkeypatch.setattr(type(stack), "candidates", (both,), raising=False)
    settings = replace(QUICK, methods=("center", "procrustes", "stack"))
    close_gap(two_modalities(), groups_of(), settings, out=tmp_path / "m")
    assert len(set(fits)) >= 3
    assert len([rows for rows in set(fits) if fits.count(rows) > 1]) == 0


def test_a_model_of_another_package_that_is_not_affine_is_a_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(Leaky):
        def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
            heads = {
                name: [affine_layer(rows.mean(dim=0), 2 * torch.eye(12)), activation_layer("tanh")]
                for name, rows in pairs.training.items()
            }
            return FittedMethod(vector_model(pairs, heads))

    monkeypatch.setitem(CLOSING_METHODS._things, "scaled", Scaled())
    monkeypatch.setattr(Scaled, "name", "scaled")
    closed = close_gap(two_modalities(), groups_of(), replace(QUICK, methods=("scaled", "center")), out=tmp_path / "m")
    assert {one["name"] for one in closed.results["choice"]["candidates"]} >= {"scaled", "center"}
    assert json.dumps(closed.results)  # strict JSON
