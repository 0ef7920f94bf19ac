"""Exports of models with waveforms and tables: the graph gives the embeddings of the model, and the card its inputs."""

import json

import numpy as np
import pytest
import torch

from gapless.models import export
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.models.card import CardFacts, model_card
from gapless.models.spec import with_fitted_input

ROWS = [{"age": float(row), "sex": "mf"[row % 2]} for row in range(20)]


@pytest.fixture(scope="module")
def model():
    table = {"kind": "table", "columns": ["age", "sex"], "quantiles": 10, "min_rows": 1}
    vector = {"kind": "vector", "size": 4}
    modalities = {
        "ecg": {"input": {"kind": "waveform", "rate": 50, "seconds": 2}},
        "labs": with_fitted_input("labs", {"input": table}, ROWS),
        "text": {"input": vector, "encoder": vector},
    }
    torch.manual_seed(0)
    return GaplessModel(GaplessConfig(modalities, 8, loss={"anchor": "text"})).train(False)


@pytest.mark.ci
def test_the_graphs_give_the_embeddings_of_the_model(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    differences = export.export_onnx(model, tmp_path / "onnx")
    assert differences.keys() == {"ecg", "labs", "text"}
    assert max(differences.values()) < 1e-4
    about = json.loads((tmp_path / "onnx" / "onnx.json").read_text())["modalities"]
    assert about["ecg"]["preprocessing"]["rate"] == 50
    kind = model.preprocessor("labs")
    rows = [ROWS[3], {"age": None, "sex": "m"}, {"age": 90.0, "sex": None}, ROWS[7]]  # fields may be missing
    inputs = kind.collate([kind.prepare(row) for row in rows])
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "labs.onnx")
    found = session.run([export.OUTPUT], {name: value.numpy() for name, value in inputs.items()})[0]
    np.testing.assert_allclose(found, model.encode("labs", rows).numpy(), atol=1e-4)


def test_the_card_shows_each_pair_with_its_rows_and_what_goes_in(model):
    pairs = {"ecg-text": {"n": 30, "gallery_size": 30}, "labs-text": {"n": 77, "gallery_size": 77}}
    figures = {
        "gap/true_pair_cosine": 0.5,
        "gap/true_pair_cosine/ecg-text": 0.25,
        "gap/true_pair_cosine/labs-text": 0.75,
        "gap/true_pair_cosine@complete": 0.625,
    }
    results = {"figures": figures, "n": 90, "gallery_size": None, "split": "test", "pairs": pairs}
    results["complete"] = {"n": 17, "gallery_size": 17}
    card = model_card(model, CardFacts("x", results))
    assert "gallery None" not in card
    assert "| ecg-text | 30 | 30 | 0.250 |" in card
    assert "| labs-text | 77 | 77 | 0.750 |" in card
    assert "| rows with every modality | 17 | 17 | 0.625 |" in card
    assert "- ecg: waveform: " in card
    assert "rate 50" in card
    one = {key: value for key, value in results.items() if key not in ("pairs", "complete")} | {"gallery_size": 90}
    plain = model_card(model, CardFacts("x", one))
    assert "Measured on 90 pairs of the split `test`, gallery 90." in plain  # the control: complete rows as before
