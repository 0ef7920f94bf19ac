"""What holds for every method: means that can be removed, weights that are finite, rows that vary."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gapless.closing.base import CLOSING_METHODS, ClosingPairs, ClosingSettings, FittedMethod, closing_method
from gapless.closing.cca import CcaSettings
from gapless.closing.center import Center
from gapless.closing.close import close_gap
from gapless.closing.fitting import fit_method, mapped_rows, without_means
from gapless.closing.layers import affine_layer, vector_model
from gapless.closing.trained_heads import adapter_settings
from gapless.core.errors import DataRefused
from gapless.models.aligner import GaplessModel


def related(num_rows: int = 200, dims: tuple[int, ...] = (8, 8), seed: int = 0) -> dict[str, np.ndarray]:
    """Modalities that see the same 4 numbers, with noise, each in a cone of its own."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 4))
    names = ("image", "text", "ecg")[: len(dims)]
    return {
        name: (
            hidden @ random.standard_normal((4, dim))
            + 0.5 * random.standard_normal((num_rows, dim))
            + 2 * random.standard_normal(dim)
        ).astype(np.float32)
        for name, dim in zip(names, dims, strict=True)
    }


def pairs_of(rows: dict[str, np.ndarray]) -> ClosingPairs:
    unit = {name: torch.nn.functional.normalize(torch.from_numpy(one)) for name, one in rows.items()}
    count = len(next(iter(unit.values())))
    split = count * 4 // 5
    index = np.arange(count)
    return ClosingPairs(unit, list(unit)[-1], list(map(str, index)), index[:split], index[split:], index, index)


def test_without_means_each_modality_has_mean_zero_before_the_last_norm(tmp_path: Path) -> None:
    pairs = pairs_of(related())
    settings = CcaSettings(ridge=0.1, weight=1.0, num_directions=4, remove_mean=True)
    plain = fit_method(closing_method("cca"), pairs, replace(settings, remove_mean=False), 0, folder=tmp_path).model
    model = fit_method(closing_method("cca"), pairs, settings, 0, folder=tmp_path).model
    for name in pairs.sizes:
        expected = mapped_rows(plain, name, pairs.embeddings[name], np.arange(200))
        expected = expected - expected[pairs.train].mean(dim=0)
        with torch.no_grad():
            torch.testing.assert_close(model.heads[name](pairs.embeddings[name]), expected, rtol=1e-5, atol=1e-6)
        assert float(mapped_rows(plain, name, pairs.embeddings[name], pairs.train).mean(dim=0).norm()) > 1e-3
    again = without_means(model, pairs)  # the control: the last norm moves the mean, so a second time is not the first
    assert not torch.allclose(again.encode("text", related()["text"]), model.encode("text", related()["text"]))


def test_the_loss_of_a_trained_method_is_kept(tmp_path: Path) -> None:
    settings = replace(adapter_settings(), max_steps=3, hidden=8, num_evaluations=1, remove_mean=True)
    closed = close_gap(related(), settings=settings, out=tmp_path / "closed")
    whole = GaplessModel.from_pretrained(tmp_path / "closed")
    assert whole.config.loss["settings"] == closed.model.config.loss["settings"]
    assert [layer["kind"] for layer in whole.config.modalities["image"]["head"]][-2:] == ["unit_norm", "affine"]
    assert closed.results["settings"]["remove_mean"] is True


class Broken:
    name = "broken"
    summary = source = ""
    settings = ClosingSettings

    def fit(self, pairs: ClosingPairs, settings: ClosingSettings, seed: int, *, folder: Path) -> FittedMethod:
        heads = {name: [affine_layer(torch.zeros(8), torch.full((8, 8), torch.nan))] for name in pairs.sizes}
        return FittedMethod(vector_model(pairs, heads))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLOSING_METHODS._things, "broken", Broken())
    with pytest.raises(DataRefused, match=r"'broken' cannot be fitted .* heads\.image\.0\.rotation has NaN"):
        close_gap(related(), method="broken", out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_modality_that_never_varies_is_refused_by_name(tmp_path: Path) -> None:
    rows = related()
    rows["text"] = np.repeat(rows["text"][:1], 200, axis=0) * np.arange(1, 201, dtype=np.float32)[:, None]
    with pytest.raises(DataRefused, match="training rows of text are the same"):
        close_gap(rows, method="center", out=tmp_path / "m")
    assert Center.name in CLOSING_METHODS
