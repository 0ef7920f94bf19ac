"""Cached accumulation as a training argument: one step on a large batch, encoded a few pairs at a time."""

import pytest
import torch
from fakes import CAPTIONS, tiny_bert, tiny_model


def text_pair_modalities():
    """Two text towers with dropout and without batch normalisation."""
    encoder = {"kind": "transformers", "config": tiny_bert(), "pooling": "mean"}
    return {name: {"input": {"kind": "text", "max_length": 32}, "encoder": encoder} for name in ("text", "report")}


def gradients(micro_batch_size):
    model = tiny_model(modalities=text_pair_modalities()).train()
    model.tokenizers["report"] = model.tokenizers["text"]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.micro_batch_size = micro_batch_size
    inputs = model.preprocessor("text").collate(CAPTIONS)
    model(batch={"text": inputs, "report": inputs}).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("micro_batch_size", [1, 4, 6])
def test_the_gradient_is_that_of_the_large_batch(micro_batch_size):
    whole, cached = gradients(None), gradients(micro_batch_size)
    assert whole.keys() == cached.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-6, rtol=1e-4)


def test_plain_accumulation_has_another_gradient():
    """The control: summing the losses of micro-batches contrasts each with itself alone."""
    model = tiny_model(modalities=text_pair_modalities()).train()
    model.tokenizers["report"] = model.tokenizers["text"]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for part in (CAPTIONS[:3], CAPTIONS[3:]):
        inputs = model.preprocessor("text").collate(part)
        (model(batch={"text": inputs, "report": inputs}).loss / 2).backward()
    name = "heads.text.0.weight"
    difference = (dict(model.named_parameters())[name].grad - gradients(None)[name]).abs().max()
    assert difference > 1e-3
