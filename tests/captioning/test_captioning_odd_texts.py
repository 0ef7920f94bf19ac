"""Texts that are empty, of one token, of 10,000 words or of another language; a tokenizer without an end token."""

from types import SimpleNamespace

import pytest
import torch
from fakes import CAPTIONS, tiny_model

from gapless.captioning.captioner import assemble_captioner
from gapless.captioning.decoders import special_ids
from gapless.captioning.train_texts import TrainTexts
from gapless.core.errors import DataRefused, UsageError

DECODER = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
ODD = ["", "x", "mass " * 10_000, "左肺に腫瘤があります", "🩻"]


@pytest.fixture(scope="module")
def captioner():
    torch.manual_seed(0)
    options = {"use_patches": False, "max_tokens": 24, "vocab_size": 400}
    return assemble_captioner(tiny_model(), DECODER, CAPTIONS, **options)


def test_odd_texts_have_finite_losses_and_fit(captioner):
    inputs = captioner.encode_captions(ODD)
    assert inputs["input_ids"].shape == (5, 24)
    embedding = captioner.aligner.encode("text", [text or "." for text in ODD])
    losses = captioner(**inputs, embedding=embedding)
    assert bool(losses.per_row.isfinite().all())
    end = captioner.special_ids()["eos_token_id"]
    assert [end in row.tolist()[1:] for row in inputs["input_ids"][:3]] == [True, True, False]
    assert captioner.num_cut(ODD[:3]) == 1
    assert len(TrainTexts.of(ODD).numbers) == 4


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(UsageError, match="no start or no end token"):
        special_ids(SimpleNamespace(bos_token_id=1, pad_token_id=0))


def test_damaged_training_texts_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "train_texts.json").write_text('{"numbers": ["a"], "texts": null}', encoding="utf-8")
    with pytest.raises(DataRefused, match="holds no numbers and texts"):
        TrainTexts.read(tmp_path)
