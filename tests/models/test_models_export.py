"""What leaves the house gives the same embeddings, and says what it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, noise_images, tiny_bert, tiny_modalities, tiny_model

from gapless.core.errors import GaplessError, NeedsNetwork
from gapless.models import export
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.models.card import CardFacts, model_card

RESULTS = {
    "figures": {
        "gap/centroid_distance_unbiased": {"value": 0.12, "low": 0.1, "high": 0.15},
        "gap/true_pair_cosine": 0.54,
        "retrieval/mean/R@10": 0.4,
    },
    "n": 200,
    "gallery_size": 200,
    "split": "test",
    "seed": 0,
    "method": "gapless",
    "versions": {"torch": "2"},
    "data": {"source": "/home/someone/secret/roco.csv", "fingerprint": "abc123", "rows": {"train": 900, "test": 200}},
}


def model() -> GaplessModel:
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    return tiny_model(modalities=modalities).train(False)


def test_graphs_give_the_embeddings_of_the_model_for_any_batch_and_length(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    ours = model()
    differences = export.export_onnx(ours, tmp_path / "onnx")
    assert set(differences) == {"image", "text"}
    assert max(differences.values()) < 1e-4
    about = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    for modality, raws in {"image": noise_images(7), "text": [f"{c} {c}" for c in CAPTIONS] + ["lung"]}.items():
        preprocessor = ours.preprocessor(modality)
        inputs = preprocessor.collate([preprocessor.prepare(raw) for raw in raws])
        assert about["modalities"][modality]["inputs"] == list(inputs)
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / f"{modality}.onnx")
        found = session.run([export.OUTPUT], {name: value.numpy() for name, value in inputs.items()})[0]
        np.testing.assert_allclose(found, ours.encode(modality, raws).numpy(), atol=1e-4)
    assert (tmp_path / "onnx" / "tokenizer" / "text" / "tokenizer_config.json").exists()


def test_a_graph_that_differs_is_refused_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    vectors = {
        name: {"input": v, "encoder": v, "head": []} for name in ("a", "b") if (v := {"kind": "vector", "size": 4})
    }
    identity = GaplessModel(GaplessConfig(vectors, 4, loss={"anchor": "b"}))
    write = export.write_graph

    def another(tower: export.Tower, inputs: dict[str, torch.Tensor], file: Path) -> None:
        class Shifted(export.Tower):
            def forward(self, *values: torch.Tensor) -> torch.Tensor:
                return super().forward(*values) + 0.001

        write(Shifted(tower.model, tower.modality, tower.names), inputs, file)

    assert max(export.export_onnx(identity, tmp_path / "right").values()) < 1e-6
    monkeypatch.setattr(export, "write_graph", another)
    with pytest.raises(GaplessError, match="the graph of a differs from the model"):
        export.export_onnx(identity, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_hub_directory_is_a_model_with_a_card(tmp_path: Path) -> None:
    ours = model()
    facts = CardFacts("chest-aligner", RESULTS, {"gap/true_pair_cosine": {"mean": 0.2}}, "baseline clip", {"CC-BY": 3})
    export.export_hub(ours, model_card(ours, facts), tmp_path / "hub")
    again = GaplessModel.from_pretrained(tmp_path / "hub")
    torch.testing.assert_close(again.encode("text", CAPTIONS), ours.encode("text", CAPTIONS))
    card = (tmp_path / "hub" / "README.md").read_text()
    for said in (
        "Intended use",
        "not a medical device",
        "| baseline clip | this model |",
        "| 0.200 | 0.540 |",
        "0.120 [0.100, 0.150]",
        "train 900, test 200",
        "`abc123`",
        "CC-BY: 3 rows",
        "source: roco.csv",
        "gallery 200",
    ):
        assert said in card
    assert "someone" not in card  # the folders of the machine stay out
    assert card.startswith("---\nlibrary_name: gapless\n")


def test_a_card_admits_what_it_does_not_know() -> None:
    ours = model()
    card = model_card(ours, CardFacts("x", {**RESULTS, "data": {}}))
    assert "has not been measured" in card
    assert "licence of the data was not recorded" in card
    known = model_card(ours, replace(CardFacts("x", RESULTS), before=RESULTS["figures"], licences={"MIT": None}))
    assert "has not been measured" not in known  # the control
    assert "was not recorded" not in known


def test_sending_while_offline_says_so_and_keeps_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    client_error = HfHubHTTPError.__bases__[0]

    def offline(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("offline")

    def unreachable(*_: object, **__: object) -> None:
        raise client_error("no route")  # what the hub's HTTP client raises without a network

    for fault, said in ((offline, "HF_HUB_OFFLINE"), (unreachable, "cannot be reached")):
        monkeypatch.setattr(HfApi, "create_repo", fault)
        with pytest.raises(NeedsNetwork, match=said) as caught:
            export.push(tmp_path, "me/model")
        assert caught.value.exit_code == 4
