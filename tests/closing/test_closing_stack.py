"""Methods side by side and one after another: their cosines are known from those of the parts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gapless.cli.main import main
from gapless.closing.base import closing_method
from gapless.closing.cca import CcaSettings
from gapless.closing.close import close_gap
from gapless.closing.procrustes import Procrustes
from gapless.closing.stack import StackSettings
from gapless.closing.trained_heads import AdapterSettings, adapter_settings
from gapless.core.errors import UsageError
from gapless.models.aligner import GaplessModel

CCA = CcaSettings(ridge=0.1, weight=1.0, num_directions=4)


def related(num_rows: int = 200, dims: tuple[int, int] = (9, 7), seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((num_rows, 4))
    return {
        name: (hidden @ random.standard_normal((4, dim)) + random.standard_normal((num_rows, dim)) + 2).astype("f4")
        for name, dim in zip(("image", "text"), dims, strict=True)
    }


def cosines(model: GaplessModel, rows: dict[str, np.ndarray]) -> torch.Tensor:
    return model.encode("image", rows["image"]) @ model.encode("text", rows["text"]).T


def test_the_cosine_of_a_concatenation_is_the_weighted_mean_of_the_cosines(tmp_path: Path) -> None:
    rows = related()
    settings = StackSettings(methods="procrustes,cca", weights="3,1", settings={"cca": CCA})
    stacked = close_gap(rows, settings=settings, method="stack", out=tmp_path / "stack")
    turned = close_gap(rows, method="procrustes", out=tmp_path / "procrustes").model
    shrunk = close_gap(rows, settings=CCA, method="cca", out=tmp_path / "cca").model
    expected = 0.75 * cosines(turned, rows) + 0.25 * cosines(shrunk, rows)
    torch.testing.assert_close(cosines(stacked.model, rows), expected, rtol=1e-4, atol=1e-5)
    again = GaplessModel.from_pretrained(tmp_path / "stack")
    torch.testing.assert_close(cosines(again, rows), expected, rtol=1e-4, atol=1e-5)
    assert [(part["method"], part["weight"]) for part in stacked.results["parts"]] == [
        ("procrustes", 0.75),
        ("cca", 0.25),
    ]
    assert "correlations" in stacked.results["parts"][1]
    assert not list((tmp_path / "stack").glob("part-*"))  # neither of them writes anything


def test_a_chain_is_one_method_on_what_the_other_gives(tmp_path: Path) -> None:
    rows = related()
    settings = StackSettings(methods=("procrustes", "cca"), how="chain", settings={"cca": CCA})
    chained = close_gap(rows, settings=settings, method="stack", out=tmp_path / "chain").model
    turned = close_gap(rows, method="procrustes", out=tmp_path / "procrustes").model
    between = {name: turned.encode(name, one).numpy() for name, one in rows.items()}
    last = close_gap(between, settings=CCA, method="cca", out=tmp_path / "cca").model
    torch.testing.assert_close(cosines(chained, rows), cosines(last, between), rtol=1e-4, atol=1e-5)
    plain = close_gap(rows, settings=CCA, method="cca", out=tmp_path / "plain").model  # the control
    assert not torch.allclose(cosines(chained, rows), cosines(plain, rows), atol=1e-3)


def small_adapter() -> dict[str, Any]:
    return {"max_steps": 4, "hidden": 8, "num_evaluations": 1, "embedding_dim": 6, "loss": {"alignment_weight": 2}}


def test_the_default_is_an_adapter_less_its_means_beside_cca(tmp_path: Path) -> None:
    closed = close_gap(
        related(), settings=StackSettings(settings={"adapter": small_adapter()}), method="stack", out=tmp_path / "m"
    )
    assert [part["method"] for part in closed.results["parts"]] == ["adapter", "cca"]
    (layer,) = closed.model.config.modalities["image"]["head"]
    trained = [one["kind"] for one in layer["branches"][0]]
    assert trained[-3:] == ["unit_norm", "affine", "unit_norm"]  # the mean is subtracted
    assert layer["weights"] == pytest.approx([0.5**0.5] * 2)
    assert (tmp_path / "m" / "part-1-adapter" / "metrics.jsonl").is_file()


def test_three_modalities_stand_side_by_side(tmp_path: Path) -> None:
    rows = related(dims=(8, 8)) | {"ecg": related(seed=5, dims=(8, 8))["text"]}
    settings = StackSettings(methods="center,procrustes")
    closed = close_gap(rows, settings=settings, method="stack", out=tmp_path / "m")
    assert closed.model.encode("ecg", rows["ecg"]).shape == (200, 16)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": "cca"}, "at least 2 methods, got cca"),
        ({"methods": ""}, "at least 2 methods, got none"),
        ({"weights": "1"}, "2 numbers above 0, one for each method, got '1'"),
        ({"weights": (1.0, -1.0)}, "2 numbers above 0"),
        ({"weights": "1,x"}, "2 numbers above 0"),
        ({"how": "chian"}, "chain"),
        ({"how": "chain", "weights": "1,1"}, "a chain has none"),
        ({"settings": {"procrustes": {}}}, "procrustes"),
    ],
)
def test_what_a_stack_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StackSettings(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": "cca,stack"}, "no stack inside it"),
        ({"methods": "cca,procrutses"}, "procrustes"),
        ({"settings": {"cca": {"rigde": 3}}}, "ridge"),
        ({"settings": {"adapter": {"hidden": "wide"}}}, "hidden of adapter is int, as 1024 is; got 'wide'"),
        ({"settings": {"adapter": {"loss": {"alignment_wieght": 1}}}}, "alignment_weight"),
        ({"settings": {"cca": 3}}, "mapping of names to values, got 3"),
        ({"settings": {"cca": AdapterSettings()}}, "cca takes CcaSettings, got AdapterSettings"),
    ],
)
def test_a_part_that_cannot_be_is_refused_before_anything_is_fitted(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        close_gap(related(), settings=StackSettings(**options), method="stack", out=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_object_of_settings_is_taken_as_it_is(tmp_path: Path) -> None:
    small = replace(adapter_settings(), max_steps=3, hidden=8, num_evaluations=1, embedding_dim=6)
    settings = StackSettings(settings={"adapter": small, "cca": CCA})
    closed = close_gap(related(), settings=settings, method="stack", out=tmp_path / "m")
    assert closed.results["settings"]["settings"]["adapter"]["hidden"] == 8
    assert closed.model.config.embedding_dim == 6 + 4
    assert closing_method("procrustes").name == Procrustes.name


def test_the_command_takes_methods_weights_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {}
    for name, rows in related().items():
        files[name] = tmp_path / f"{name}.npy"
        np.save(files[name], rows)
    settings = json.dumps({"cca": {"ridge": [3, 1], "num_directions": 3}})
    words = ["close", "--image", files["image"], "--text", files["text"], "--out", tmp_path / "m", "--method", "stack"]
    words += [
        "--stack.methods",
        "procrustes,cca",
        "--stack.weights",
        "0.25,0.75",
        "--stack.settings",
        settings,
        "--json",
    ]
    assert main([*map(str, words), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)["parts"]
    assert [part["weight"] for part in parts] == [0.25, 0.75]
    assert parts[1]["chosen"]["ridges"] == [3, 1]
