"""Closing with rows that lack modalities: each pair on its common rows, NaN nowhere, refusals by name."""

from itertools import combinations

import numpy as np
import pytest
import torch

from gapless.closing.base import closing_method
from gapless.closing.close import close_gap, pairs_of
from gapless.closing.procrustes import ProcrustesSettings, fit_procrustes
from gapless.core.errors import DataRefused, UsageError

NAMES = ("image", "ecg", "text")
NUM_ROWS = 120


def rows_of(seed=0):
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((NUM_ROWS, 5))
    return {
        name: (hidden @ random.standard_normal((5, 8)) + 0.3 * random.standard_normal((NUM_ROWS, 8)) + number).astype(
            "f4"
        )
        for number, name in enumerate(NAMES)
    }


def masks_of(seed=0):
    random = np.random.default_rng(50 + seed)
    masks = {name: random.random(NUM_ROWS) > 0.25 for name in NAMES}
    enough = np.sum(list(masks.values()), axis=0) >= 2
    masks["image"] |= ~enough
    masks["text"] |= ~enough
    return masks


def holed(rows, masks, fill=np.nan):
    return {name: np.where(masks[name][:, None], matrix, np.float32(fill)) for name, matrix in rows.items()}


def pairs(rows, masks, settings=None):
    chosen = settings or ProcrustesSettings()
    return pairs_of(rows, None, chosen, 0, None, None, None, None, masks)[0]


def output(model, name, rows):
    return model.embed(name, {"values": torch.as_tensor(rows)}).detach()


@pytest.mark.parametrize("kind", ["orthogonal", "shrunk"])
def test_procrustes_fits_each_pair_on_its_common_rows(tmp_path, kind):
    """The reference is fitted on the common rows alone, and knows no masks."""
    rows, masks = rows_of(), masks_of()
    alpha = None if kind == "orthogonal" else 1.0
    settings = ProcrustesSettings(map=kind, alpha=alpha)
    own = pairs(holed(rows, masks), masks, settings)
    fitted = closing_method("procrustes").fit(own, settings, 0, folder=tmp_path).model
    for name in ("image", "ecg"):
        common = own.train[(masks[name] & masks["text"])[own.train]]
        unit = {one: own.embeddings[one][common] for one in (name, "text")}
        if kind == "orthogonal":
            alone = fit_procrustes(unit, "text")
            mapped = (unit[name] - alone[name].offset) @ alone[name].rotation
        else:
            x, y = (matrix.double() - matrix.double().mean(dim=0) for matrix in unit.values())
            left, _, right = torch.linalg.svd(x.T @ y)
            covariance = x.T @ x / len(x)
            strength = torch.linalg.eigvalsh(covariance).mean() * torch.eye(8, dtype=torch.float64)
            mapped = x @ torch.linalg.solve(covariance + strength, x.T @ y / len(x) + strength @ (left @ right))
        middle = own.embeddings["text"][own.train[masks["text"][own.train]]].double().mean(dim=0)
        expected = mapped.double() + unit["text"].double().mean(dim=0) - middle
        expected = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(output(fitted, name, unit[name]).double(), expected, atol=1e-5, rtol=0)


def test_center_takes_the_mean_of_each_modalitys_own_rows(tmp_path):
    rows, masks = rows_of(), masks_of()
    method = closing_method("center")
    own = pairs(holed(rows, masks), masks, method.settings())
    fitted = method.fit(own, method.settings(), 0, folder=tmp_path).model
    for name in NAMES:
        chosen = own.train[masks[name][own.train]]
        unit = own.embeddings[name][chosen]
        expected = torch.nn.functional.normalize(unit - unit.mean(dim=0), dim=1)
        torch.testing.assert_close(output(fitted, name, unit), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["center", "standardise", "procrustes", "shift", "subspace"])
def test_what_an_absent_row_holds_changes_nothing(tmp_path, method):
    rows, masks = rows_of(), masks_of()
    closed = [
        close_gap(holed(rows, masks, fill), method=method, out=tmp_path / f"{number}", present=masks)
        for number, fill in enumerate((np.nan, 1e20, 3.0))
    ]
    for other in closed[1:]:
        assert other.results["figures"] == closed[0].results["figures"]
        for name, tensor in closed[0].model.state_dict().items():
            assert torch.equal(tensor, other.model.state_dict()[name]), name
            assert bool(tensor.isfinite().all())
    found = closed[0].results
    assert found["pairs"].keys() == {f"{a}-{b}" for a, b in combinations(NAMES, 2)}
    assert found["n"] >= found["complete"]["n"]


def test_all_present_is_the_same_to_the_bit(tmp_path):
    rows = rows_of()
    every = {name: np.ones(NUM_ROWS, dtype=bool) for name in NAMES}
    for method in ("procrustes", "center"):
        one = close_gap(rows, method=method, out=tmp_path / f"a{method}")
        two = close_gap(rows, method=method, out=tmp_path / f"b{method}", present=every)
        assert one.results["figures"] == two.results["figures"]


def test_two_modalities_close_as_their_common_rows_alone(tmp_path):
    rows, masks = rows_of(), masks_of()
    two = {name: rows[name] for name in ("image", "text")}
    chosen = masks["image"] & masks["text"]
    present = {name: masks[name] for name in two}
    alone = close_gap({name: matrix[chosen] for name, matrix in two.items()}, method="cca", out=tmp_path / "a")
    masked = close_gap(holed(two, present), method="cca", out=tmp_path / "b", present=present)
    assert masked.results["figures"] == alone.results["figures"]


def test_what_takes_complete_rows_only_says_so(tmp_path, monkeypatch):
    rows, masks = rows_of(), masks_of()
    monkeypatch.setattr(type(closing_method("center")), "takes_absent", False)
    with pytest.raises(UsageError, match=r"center takes rows that have every modality.*--missing drop"):
        close_gap(rows, method="center", out=tmp_path / "a", present=masks)
    without_ecg = {**masks, "ecg": ~masks["text"]}
    with pytest.raises(DataRefused, match="0 training rows have both ecg and text"):
        close_gap(rows, method="procrustes", out=tmp_path / "b", present=without_ecg)


def test_auto_has_a_row_with_the_reason(tmp_path, monkeypatch):
    from gapless.closing.auto import AutoSettings

    monkeypatch.setattr(type(closing_method("shift")), "takes_absent", False)
    settings = AutoSettings(methods=("center", "shift"), num_bootstrap=20, num_folds=2, num_repeats=1)
    closed = close_gap(rows_of(), settings=settings, out=tmp_path / "a", present=masks_of())
    reasons = {one["name"]: one["reason"] for one in closed.results["choice"]["candidates"]}
    assert "shift takes rows that have every modality" in reasons["shift"]
    assert closed.results["choice"]["name"] == "center"
