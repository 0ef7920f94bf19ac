"""The aligner: unit norm, one directory, what a partial directory lacks, frozen parts, real loading of checkpoints."""

import shutil

import numpy as np
import pytest
import torch
from fakes import CAPTIONS, noise_images, tiny_bert, tiny_modalities, tiny_model, write_images
from safetensors.torch import load_file, save_file

from gapless.core.errors import DataRefused, NeedsNetwork, UsageError
from gapless.models.aligner import GaplessConfig, GaplessModel, assemble


def test_every_modality_is_encoded_to_unit_norm_rows(tmp_path):
    model = tiny_model()
    paths = write_images(tmp_path, 3)
    for modality, batch in {"text": CAPTIONS[:3], "image": noise_images(3)}.items():
        rows = model.encode(modality, batch)
        assert rows.shape == (3, 24)
        assert rows.norm(dim=1) == pytest.approx(torch.ones(3), abs=1e-6)
    torch.testing.assert_close(model.encode("image", paths), model.encode("image", noise_images(3)))


def test_encoding_does_not_depend_on_the_batch():
    model = tiny_model()
    together = model.encode("text", CAPTIONS)
    alone = torch.cat([model.encode("text", [caption]) for caption in CAPTIONS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, model.encode("text", CAPTIONS, batch_size=2), atol=1e-5, rtol=1e-5)


def test_a_saved_model_comes_back_the_same(tmp_path):
    model = tiny_model(loss={"alignment_weight": 2.0})
    model.save_pretrained(tmp_path / "model")
    again = GaplessModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.encode("text", CAPTIONS), model.encode("text", CAPTIONS))
    assert torch.equal(again.encode("image", noise_images(2)), model.encode("image", noise_images(2)))
    assert again.loss.alignment_weight == 2.0


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer/text/tokenizer_config.json"])
def test_a_partial_directory_is_refused_by_the_name_of_the_missing_part(tmp_path, part):
    tiny_model().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / part).unlink()
    with pytest.raises(DataRefused, match=part):
        GaplessModel.from_pretrained(tmp_path / "model")


def test_another_kind_of_model_is_refused(tmp_path):
    from transformers import AutoConfig, AutoModel

    config = tiny_bert()
    AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), **config)).save_pretrained(tmp_path / "bert")
    with pytest.raises(DataRefused, match="another kind of model"):
        GaplessModel.from_pretrained(tmp_path / "bert")


def test_a_frozen_encoder_gets_no_gradient_and_stays_in_evaluation_mode():
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["trainable"] = False
    model = tiny_model(modalities=modalities).train()
    inputs = model.preprocessor("text").collate(CAPTIONS)
    model.embed("text", inputs).sum().backward()
    assert all(parameter.grad is None for parameter in model.encoders["text"].parameters())
    assert all(parameter.grad is not None for parameter in model.heads["text"].parameters())
    assert not model.encoders["text"].training
    assert model.encoders["image"].training


def test_encoders_are_loaded_from_local_checkpoints(tmp_path):
    from transformers import AutoConfig, AutoModel

    config = tiny_bert()
    bert = AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    bert.save_pretrained(tmp_path / "bert")
    modalities = tiny_modalities()
    modalities["text"]["encoder"] = {"kind": "transformers", "pretrained": str(tmp_path / "bert"), "pooling": "cls"}
    model = tiny_model(modalities=modalities)
    loaded = model.encoders["text"].model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in bert.state_dict().items())
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(tmp_path / "bert")  # the saved model needs the checkpoint no more
    again = GaplessModel.from_pretrained(tmp_path / "model")
    assert torch.equal(again.encode("text", CAPTIONS), model.encode("text", CAPTIONS))


@pytest.mark.parametrize("name", ["heads.image.0.weight", "loss.logit_scale", "running_mean"])
def test_weights_that_nobody_trained_are_refused(tmp_path, name):
    """Buffers are weights too; the control is the whole file."""
    tiny_model().save_pretrained(tmp_path)
    again, info = GaplessModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(again, GaplessModel)
    assert not info["missing_keys"]
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(key for key in weights if key.endswith(name))
    save_file({key: v for key, v in weights.items() if key != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataRefused, match=rf"lacks weights \(1: {gone}\)"):
        GaplessModel.from_pretrained(tmp_path)


def test_a_name_that_only_the_hub_knows_needs_the_network():
    modalities = tiny_modalities()
    modalities["text"]["encoder"] = {"kind": "transformers", "pretrained": "nobody/no-such-model", "pooling": "cls"}
    with pytest.raises(NeedsNetwork, match="nobody/no-such-model"):
        tiny_model(modalities=modalities)


def test_the_paper_assembly_builds_with_shrunken_depth():
    pytest.importorskip("timm")
    from gapless.training.recipes import roco_eva_bert

    modalities = {name: dict(spec) for name, spec in roco_eva_bert().modalities.items()}
    timm_config = {
        **modalities["image"]["encoder"]["config"],
        "model_args": {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 28},
    }
    modalities["image"]["encoder"] = {**modalities["image"]["encoder"], "config": timm_config}
    modalities["image"]["input"] = {**modalities["image"]["input"], "size": 28}
    modalities["text"]["encoder"] = {**modalities["text"]["encoder"], "config": tiny_bert()}
    for spec in modalities.values():
        del spec["encoder"]["pretrained"]
    model = tiny_model(modalities=modalities)
    assert model.encode("image", noise_images(2)).shape == (2, 24)
    assert model.encode("text", CAPTIONS).shape == (6, 24)
    assert type(model.encoders["image"].model).__name__ == "TimmWrapperModel"


def test_vectors_are_a_modality_like_any_other():
    modalities = {
        name: {"input": {"kind": "vector", "size": 5}, "encoder": {"kind": "vector", "size": 5}} for name in "ab"
    }
    model = assemble(GaplessConfig(modalities=modalities, embedding_dim=3, loss={"anchor": "a"}))
    assert model.encode("a", np.eye(5)).shape == (5, 3)
    with pytest.raises(DataRefused, match="5 finite numbers"):
        model.encode("a", [[1.0, 2.0]])


def test_bad_input_is_one_sentence():
    model = tiny_model()
    with pytest.raises(UsageError, match="known: image, text"):
        model.encode("sound", ["x"])
    with pytest.raises(UsageError, match="list of inputs"):
        model.encode("text", "one string")
    with pytest.raises(UsageError, match="empty batch"):
        model.encode("text", [])
    with pytest.raises(DataRefused, match="at least one word"):
        model.encode("text", ["  "])
    with pytest.raises(UsageError, match="unknown encoder kind"):
        assemble(
            GaplessConfig(modalities={"x": {"input": {"kind": "vector", "size": 2}, "encoder": {"kind": "magic"}}})
        )
