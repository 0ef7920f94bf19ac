"""Low-rank adapters: what learns, the formula, saving and merging, and a training with them."""

import json

import pytest
import torch
from fakes import CAPTIONS, tiny_bert, tiny_modalities, tiny_model

from gapless.core.errors import UsageError
from gapless.models.aligner import GaplessModel
from gapless.models.encoders import build_encoder, load_pretrained_encoder
from gapless.models.lora import merge_lora
from gapless.models.spec import encoder_spec, modality_spec

LORA = {"rank": 2, "alpha": 6, "dropout": 0.0}


def described(**lora):
    return {"kind": "transformers", "config": tiny_bert(), "pooling": "mean", "lora": {**LORA, **lora}}


def with_random_adapters(encoder):
    """B is zero at the start, so that the adapters change nothing; here it is drawn."""
    for name, weight in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return encoder


def lora_model():
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["lora"] = LORA
    return tiny_model(modalities=modalities)


@pytest.fixture
def tokens():
    return {"input_ids": torch.arange(12).reshape(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}


def test_a_layer_adds_alpha_over_rank_times_b_a_x():
    layer = with_random_adapters(build_encoder(encoder_spec(described()))).model.encoder.layer[0].attention.self.query
    x = torch.randn(5, 16)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ layer.base_layer.weight.T + layer.base_layer.bias + 6.0 / 2 * x @ a.T @ b.T
    torch.testing.assert_close(layer(x), expected)


def test_at_the_start_the_encoder_is_as_it_was(tokens, tmp_path):
    plain = build_encoder(encoder_spec({key: value for key, value in described().items() if key != "lora"})).eval()
    plain.model.save_pretrained(tmp_path)
    filled, encoder = load_pretrained_encoder({**described(), "pretrained": str(tmp_path)})
    assert filled["lora"] == LORA
    torch.testing.assert_close(encoder.eval()(**tokens), plain(**tokens))


def test_only_the_adapters_learn():
    learning = [
        name for name, weight in build_encoder(encoder_spec(described())).named_parameters() if weight.requires_grad
    ]
    assert len(learning) == 2 * 7
    assert all("lora_" in name for name in learning)


def test_targets_name_the_layers():
    encoder = build_encoder(encoder_spec(described(targets=["query", "value"])))
    learning = {name.split(".lora_")[0].rsplit(".", 1)[1] for name, w in encoder.named_parameters() if w.requires_grad}
    assert learning == {"query", "value"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank and an alpha of at least 1"),
        ({"alpha": 0}, "rank and an alpha of at least 1"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"rnak": 4}, "did you mean 'rank'"),
        ({"targets": ["quarry"]}, "no linear layer"),
        ({"targets": ["uery"]}, "no linear layer"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        build_encoder(encoder_spec(described(**change)))


def test_adapters_of_a_frozen_encoder_are_refused():
    with pytest.raises(UsageError, match="trainable: false"):
        encoder_spec({**described(), "trainable": False})


def test_other_kinds_of_encoders_take_none():
    with pytest.raises(UsageError, match="unknown key 'lora'"):
        modality_spec(
            "x", {"input": {"kind": "vector", "size": 4}, "encoder": {"kind": "vector", "size": 4, "lora": {}}}
        )


def test_a_model_with_adapters_is_saved_and_loaded(tmp_path):
    model = lora_model().eval()
    with_random_adapters(model.encoders["text"])
    model.save_pretrained(tmp_path)
    loaded = GaplessModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode("text", CAPTIONS), model.encode("text", CAPTIONS))


def test_merging_changes_no_output_and_leaves_no_adapters(tmp_path):
    model = lora_model().eval()
    with_random_adapters(model.encoders["text"])
    before = model.encode("text", CAPTIONS)
    merge_lora(model)
    torch.testing.assert_close(model.encode("text", CAPTIONS), before, atol=1e-6, rtol=0)
    model.save_pretrained(tmp_path)
    assert "lora" not in (tmp_path / "config.json").read_text()
    loaded = GaplessModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode("text", CAPTIONS), model.encode("text", CAPTIONS))
    assert loaded.state_dict().keys() == tiny_model().state_dict().keys()


def test_merging_a_model_without_adapters_leaves_it_alone():
    model = tiny_model()
    before = json.dumps(model.config.to_dict(), default=str)
    merge_lora(model)
    assert json.dumps(model.config.to_dict(), default=str) == before
