"""The captioner: what the decoder sees, caches that change nothing, scores by brute force, one directory for all."""

import json
import math

import pytest
import torch
from fakes import CAPTIONS, noise_images, tiny_model
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GPT2Tokenizer,
    RobertaConfig,
    RobertaForCausalLM,
)

from gapless.captioning import captioner
from gapless.captioning.captioner import Captioner, assemble_captioner
from gapless.captioning.decoders import build_decoder, load_pretrained_decoder, special_ids
from gapless.captioning.generation import LIMITS, GenerationSettings, captions_from, generated, options_of, up_to_end
from gapless.core.errors import DataRefused, UsageError
from gapless.models.safe_loading import saved_tokenizer

TINY = {
    "bert": {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_head": 2},
}


TINY_ROBERTA = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def tiny_captioner(family="bert", use_patches=True, seed=0, **options) -> Captioner:
    torch.manual_seed(seed)
    settings = {"use_patches": use_patches, "max_tokens": 24, "vocab_size": 400, **options}
    return assemble_captioner(tiny_model(), TINY[family], CAPTIONS, **settings).train(False)


def prefix_of(model, num_images=4):
    return model.prefix(*model.features(model.preprocessor("image").collate(noise_images(num_images))))


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def learnt(request):
    """A captioner that knows four captions by heart, so that it ends them."""
    model = tiny_captioner(request.param).train()
    inputs = {**model.encode_captions(CAPTIONS[:4]), "batch": {"image": images(model)}}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    return model.train(False)


def images(model, num_images=4):
    return model.preprocessor("image").collate(noise_images(num_images))


def brute_force(model, prefix, text):
    """Mean log-probability of a caption, token by token without a cache."""
    ids = model.encode_captions([text])["input_ids"][0].tolist()
    total = 0.0
    for length in range(1, len(ids)):
        logits = model.decoder(
            input_ids=torch.tensor([ids[:length]]), encoder_hidden_states=prefix[None], use_cache=False
        ).logits[0, -1]
        total += float(logits.log_softmax(-1)[ids[length]])
    return total / (len(ids) - 1)


@torch.no_grad()
@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_a_captioner_says_what_it_learnt_and_scores_are_mean_log_probabilities(learnt, method):
    prefix = prefix_of(learnt)
    settings = GenerationSettings(method, num_beams=3, length_penalty=0.5, top_p=0.5)
    found = captions_from(learnt, prefix, settings, key="batch")
    assert [caption.text for caption in found] == [text.lower() for text in CAPTIONS[:4]]
    for row, (text, score) in enumerate(found):
        assert score == pytest.approx(brute_force(learnt, prefix[row], text), abs=1e-4)
    assert found[0].score > math.log(0.2)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings", [GenerationSettings("greedy", no_repeat_ngram_size=2), GenerationSettings("sample")]
)
def test_scores_of_one_token_after_the_other_need_no_further_pass(settings):
    """An untrained model ends its captions anywhere; the filters of sampling do not change a token's probability."""
    model = tiny_captioner()
    prefix = prefix_of(model, 8)
    calls = []
    handle = model.decoder.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    ids, is_token, losses = generated(model, prefix, options_of(settings))
    handle.remove()
    assert len(calls) == ids.shape[1] - 1
    end = model.special_ids()["eos_token_id"]
    expected, counted = model.token_losses(prefix, ids, up_to_end(ids, end))
    assert torch.equal(is_token, counted)
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", [{"do_sample": False}, {"do_sample": False, "num_beams": 3}])
def test_the_cache_changes_nothing(learnt, options):
    prefix = prefix_of(learnt, 3)
    ids = special_ids(learnt.tokenizer)
    start = torch.full((3, 1), ids["bos_token_id"])
    plain = learnt.decoder.generate(
        input_ids=start, encoder_hidden_states=prefix, use_cache=False, max_length=24, **ids, **options
    )
    assert torch.equal(learnt.generate(prefix, **options), plain)


@torch.no_grad()
def test_the_prefixs_keys_are_computed_once(learnt):
    """The control: without the cache they are computed again at every step."""
    names = ("crossattention.self.key", "crossattention.c_attn")
    projections = [module for name, module in learnt.decoder.named_modules() if name.endswith(names)]
    calls = []
    handles = [projection.register_forward_hook(lambda *_: calls.append(1)) for projection in projections]
    prefix, ids = prefix_of(learnt, 2), special_ids(learnt.tokenizer)
    learnt.generate(prefix, do_sample=False)
    once = len(calls)
    start = torch.full((2, 1), ids["bos_token_id"])
    learnt.decoder.generate(input_ids=start, encoder_hidden_states=prefix, use_cache=False, max_length=24, **ids)
    for handle in handles:
        handle.remove()
    assert once == len(projections) > 0
    assert len(calls) - once > len(projections)


@torch.no_grad()
def test_beams_that_change_places_leave_the_prefix_where_it_is(monkeypatch):
    """Beams of an untrained model change places often; the control copies the keys of the prefix each time."""
    model = tiny_captioner()
    prefix = prefix_of(model, 3)
    options = {"do_sample": False, "num_beams": 4, "num_return_sequences": 4}
    moved = []
    reorder = DynamicCache.reorder_cache
    monkeypatch.setattr(DynamicCache, "reorder_cache", lambda self, beams: (moved.append(beams), reorder(self, beams)))
    found = model.generate(prefix, **options)
    assert any(not torch.equal(beams, torch.arange(12)) for beams in moved)
    ours = len(moved)
    monkeypatch.setattr(captioner, "PrefixCache", lambda room: EncoderDecoderCache(DynamicCache(), DynamicCache()))
    assert torch.equal(model.generate(prefix, **options), found)
    assert len(moved) - ours == 2 * ours


@torch.no_grad()
def test_sampling_draws_from_seed_and_key():
    model = tiny_captioner()
    prefix = prefix_of(model)

    def drawn(key, seed=0):
        return captions_from(model, prefix, GenerationSettings("sample", seed=seed), key)

    before = torch.get_rng_state()
    assert drawn("a") == drawn("a")
    assert torch.equal(before, torch.get_rng_state())
    assert drawn("a") != drawn("b")
    assert drawn("a") != drawn("a", seed=1)


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_one_directory_holds_all(tmp_path, family):
    model = tiny_captioner(family)
    model.save_pretrained(tmp_path / "m")
    again = Captioner.from_pretrained(tmp_path / "m").train(False)
    weights = again.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert again.encode_captions(CAPTIONS)["input_ids"].equal(model.encode_captions(CAPTIONS)["input_ids"])
    assert torch.equal(
        again.generate(prefix_of(again), do_sample=False), model.generate(prefix_of(model), do_sample=False)
    )
    assert torch.equal(again.aligner.encode("text", CAPTIONS), model.aligner.encode("text", CAPTIONS))


def test_a_decoder_sees_the_embedding_and_the_patches():
    model = tiny_captioner(num_slots=3)
    embedding, tokens = model.features(images(model, 2))
    prefix = model.prefix(embedding, tokens)
    assert prefix.shape == (2, 3 + model.config.num_patches, 32)
    assert model.config.num_patches == tokens.shape[1] == 4  # a ResNet of 16 pixels ends at 2 x 2
    assert torch.equal(embedding, model.aligner.embed("image", images(model, 2)))
    alone = tiny_captioner(use_patches=False, num_slots=3)
    assert alone.prefix(*alone.features(images(alone, 2))).shape == (2, 3, 32)
    with pytest.raises(UsageError, match="patch tokens"):
        model.prefix(embedding)


@pytest.mark.parametrize("learns", [True, False])
def test_the_encoder_learns_in_joint_mode_alone(learns):
    model = tiny_captioner(trains_aligner=learns).train()
    assert model.aligner.training is learns
    batch = {"image": images(model), "text": model.preprocessor("text").collate(CAPTIONS[:4])}
    output = model(**model.encode_captions(CAPTIONS[:4]), batch=batch if learns else {"image": batch["image"]})
    output.loss.backward()
    moved = {name.split(".")[1] for name, p in model.aligner.named_parameters() if p.grad is not None}
    assert bool(moved) is learns
    if learns:
        terms = output.terms
        assert {"caption", "contrastive", "alignment", "uniformity", "total"} == terms.keys()
        gap = terms["contrastive"] + terms["alignment"] + terms["uniformity"]
        assert float(terms["total"]) == pytest.approx(float(terms["caption"] + gap), rel=1e-5)


@torch.no_grad()
def test_the_loss_is_a_mean_over_tokens_and_padding_counts_nothing():
    model = tiny_captioner()
    batch = {"image": images(model, 2)}
    short, long = CAPTIONS[0], CAPTIONS[1] + ", " + CAPTIONS[2]
    inputs = model.encode_captions([short, long])
    together = model(**inputs, batch=batch)
    rows = [
        model(
            **model.encode_captions([text]),
            batch={"image": {"pixel_values": batch["image"]["pixel_values"][i : i + 1]}},
        )
        for i, text in enumerate([short, long])
    ]
    lengths = inputs["attention_mask"].sum(dim=1) - 1
    assert together.per_row.tolist() == pytest.approx([float(row.loss) for row in rows], rel=1e-5)
    expected = sum(float(row.loss) * float(n) for row, n in zip(rows, lengths, strict=True)) / float(lengths.sum())
    assert float(together.loss) == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_noise_is_for_training_alone():
    model = tiny_captioner(use_patches=False, noise_std=0.1)
    embedding = model.aligner.embed("image", images(model))
    assert torch.equal(model.prefix(embedding), model.prefix(embedding))
    model.train()
    assert not torch.equal(model.prefix(embedding), model.prefix(embedding))


def test_a_cut_caption_has_no_end_token():
    """The control: one more token of room than it needs changes nothing, one less cuts its end off."""
    whole = tiny_captioner(max_tokens=24).encode_captions([CAPTIONS[0]])["input_ids"][0].tolist()
    end = special_ids(tiny_captioner().tokenizer)["eos_token_id"]
    assert whole[-1] == end
    assert end not in whole[1:-1]
    for room in (3, 8, len(whole) - 1, len(whole), len(whole) + 1):
        ids = tiny_captioner(max_tokens=room).encode_captions([CAPTIONS[0]])["input_ids"][0].tolist()
        assert ids == whole[:room]


def test_cut_captions_are_counted():
    """A caption that just fits is not cut; the control takes one token away from it."""
    lengths = tiny_captioner(max_tokens=24).encode_captions(CAPTIONS)["attention_mask"].sum(dim=1)
    assert 1 < lengths.min() < lengths.max() < 24, "the control: captions of several lengths, none cut"
    for room in (int(lengths.min()), int(lengths.max()) - 1, int(lengths.max())):
        assert tiny_captioner(max_tokens=room).num_cut(CAPTIONS) == int((lengths > room).sum())


def word_piece():
    words = [*["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "lung", "sep", "cls", "[", "]"]]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def gpt2_pairs():
    symbols = sorted({*ByteLevel.alphabet()})
    return GPT2Tokenizer(vocab={symbol: i for i, symbol in enumerate([*symbols, "<|endoftext|>"])}, merges=[])


@pytest.mark.parametrize("tokenizer", [None, word_piece, gpt2_pairs])
def test_what_looks_like_a_special_token_is_text(tmp_path, tokenizer):
    """Of the tokenizer trained here, one of BERT and one of GPT-2, as saved and read again."""
    model = tiny_captioner(max_tokens=40)
    if tokenizer is not None:
        tokenizer().save_pretrained(tmp_path)
        model.tokenizer = saved_tokenizer(tmp_path)
    end = model.special_ids()["eos_token_id"]
    name = model.tokenizer.convert_ids_to_tokens(end)
    control = model.tokenizer(f"left {name} lung", add_special_tokens=False)["input_ids"]
    assert end in control, "the control: left alone, the tokenizer takes it for the end"
    row = model.encode_captions([f"left {name} lung"])["input_ids"][0].tolist()
    assert row.count(end) == (2 if row[0] == end else 1)
    assert row[-1] == end
    assert len(row) > len(control) + 2
    written = model.tokenizer.decode(row, skip_special_tokens=True)
    assert "left" in written
    assert "lung" in written


def test_the_end_counts_and_what_follows_does_not():
    ids = torch.tensor([[1, 5, 2, 2, 2], [1, 5, 6, 7, 8], [2, 5, 2, 0, 0]])
    assert up_to_end(ids, 2).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_a_pretrained_decoder_brings_its_tokenizer(tmp_path):
    source = tiny_captioner("gpt2")
    source.decoder.save_pretrained(tmp_path / "decoder")
    source.tokenizer.save_pretrained(tmp_path / "decoder")
    model = assemble_captioner(
        tiny_model(), {"pretrained": str(tmp_path / "decoder")}, [], use_patches=False, max_tokens=20, vocab_size=9
    )
    weights = source.decoder.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.decoder.state_dict().items())
    assert len(model.tokenizer) == len(source.tokenizer)
    model.save_pretrained(tmp_path / "m")
    Captioner.from_pretrained(tmp_path / "m")
    longer = {"use_patches": False, "max_tokens": 25, "vocab_size": 9}
    with pytest.raises(UsageError, match="24 positions, fewer than max_tokens 25"):
        assemble_captioner(tiny_model(), {"pretrained": str(tmp_path / "decoder")}, [], **longer)


def test_arguments_have_the_names_of_their_family_and_those_of_all():
    """`hidden_size` is `n_embd` in a GPT-2."""
    decoder = {"model_type": "gpt2", "hidden_size": 32, "n_head": 2, "num_hidden_layers": 3, "pretrained": None}
    built = assemble_captioner(tiny_model(), decoder, CAPTIONS, use_patches=False, max_tokens=24, vocab_size=400)
    assert (len(built.decoder.transformer.h), built.decoder.config.n_embd) == (3, 32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": 25}, "the decoder has 24 positions, fewer than max_tokens 25"),
        ({"max_tokens": "24"}, "max_tokens is '24'"),
        ({"noise_std": "much"}, "noise_std is 'much'"),
        ({"decoder_spec": {"model_type": "roberta"}}, "unknown decoder 'roberta'"),
    ],
)
def test_a_damaged_description_is_refused_on_loading(tmp_path, change, said):
    tiny_captioner().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataRefused, match=f"damaged model: {said}"):
        Captioner.from_pretrained(tmp_path)


def test_a_pretrained_decoder_of_years_ago_may_hold_more(tmp_path):
    source = tiny_captioner("bert")
    source.decoder.save_pretrained(tmp_path / "decoder")
    source.tokenizer.save_pretrained(tmp_path / "decoder")
    config = json.loads((tmp_path / "decoder" / "config.json").read_text()) | {"gradient_checkpointing": False}
    (tmp_path / "decoder" / "config.json").write_text(json.dumps(config))
    spec, decoder, _ = load_pretrained_decoder(str(tmp_path / "decoder"))
    assert "gradient_checkpointing" not in spec
    assert build_decoder(spec).config.hidden_size == decoder.config.hidden_size == 32


def test_a_pretrained_decoder_of_another_family_is_refused(tmp_path):
    """RoBERTa attends to images, but its positions start at 2 in training and at 0 in `generate`."""
    RobertaForCausalLM(RobertaConfig(**TINY_ROBERTA)).save_pretrained(tmp_path)
    tiny_captioner().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="'roberta'; known: bert, gpt2"):
        load_pretrained_decoder(str(tmp_path))


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        ({"model_type": "nonsense"}, "nonsense"),
        ({"model_type": "bert", "hidden_size": 30, "num_attention_heads": 4}, "30"),
        (
            {"model_type": "bert", "frobnicate": 5},
            "unknown argument of a bert decoder 'frobnicate'; known: .*hidden_size",
        ),
        ({"model_type": "bert", "hidden_size": -4}, "negative dimension"),
        ({"model_type": "bert", "num_attention_heads": 0}, "decoder: .*zero"),
        ({"model_type": "bert", "num_hidden_layers": -1}, "needs a layer"),
        ({"model_type": "bert", "max_position_embeddings": 5}, "5 positions, fewer than max_tokens 24"),
        ({"model_type": "gpt2", "layers": 1}, "unknown argument of a gpt2 decoder 'layers'; nearest: .*n_layer"),
        ({"pretrained": "somewhere", "model_type": "bert", "num_hidden_layers": 5}, "no further .*num_hidden_layers"),
        ({"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}, "bert, gpt2"),
        ({"model_type": "roberta", "hidden_size": 16, "num_attention_heads": 2}, "'roberta'; known: bert, gpt2"),
    ],
)
def test_decoders_that_cannot_be_are_named(decoder, said):
    with pytest.raises(UsageError, match=said):
        assemble_captioner(tiny_model(), decoder, CAPTIONS, use_patches=False, max_tokens=24, vocab_size=400)


def test_a_model_without_a_captioner_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path / "aligner")
    with pytest.raises(UsageError, match="without a captioner"):
        Captioner.from_pretrained(tmp_path / "aligner")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"lacks config\.json"):
        Captioner.from_pretrained(tmp_path / "empty")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "config.json").write_text(json.dumps({"model_type": "gapless-captioner"}))
    with pytest.raises(DataRefused, match=r"lacks model\.safetensors"):
        Captioner.from_pretrained(tmp_path / "part")


def without_decoder(weights):
    return {name: value for name, value in weights.items() if not name.startswith("decoder.")}


def renamed(weights):
    return {("slots.w" if name == "slots.weight" else name): value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_decoder, r"lacks weights \(\d\d: decoder\..*, \.\.\.\)"),
        (renamed, r"lacks weights \(1: slots\.weight\)"),
        (lambda weights: weights | {"decoder.more": torch.ones(1)}, r"unknown weights \(1: decoder\.more\)"),
    ],
)
def test_weights_that_nobody_trained_are_refused(tmp_path, damage, said):
    """The control is the whole file, in which tied weights stand once."""
    model = tiny_captioner("gpt2")
    model.save_pretrained(tmp_path)
    again, info = Captioner.from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(again.decoder.lm_head.weight, model.decoder.lm_head.weight)
    assert not info["missing_keys"]
    save_file(damage(load_file(tmp_path / "model.safetensors")), tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataRefused, match=said):
        Captioner.from_pretrained(tmp_path)


def test_a_model_without_images_or_patches_is_refused():
    vectors = {"kind": "vector", "size": 4}
    model = tiny_model(
        modalities={name: {"input": vectors, "encoder": vectors} for name in ("image", "text")}, loss={"anchor": "text"}
    )
    with pytest.raises(UsageError, match="takes images"):
        assemble_captioner(model, TINY["bert"], CAPTIONS, use_patches=False, max_tokens=24, vocab_size=400)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "magic"}, "greedy"),
        ({"num_beams": 0}, "num_beams"),
        ({"top_p": 0.0}, "top_p"),
        ({"num_beams": 100_000}, "num_beams must be from 1 to 64"),
        ({"temperature": 1e-40}, "temperature must be from 0.01"),
        ({"temperature": math.nan}, "temperature"),
        ({"length_penalty": 1e300}, "length_penalty"),
    ],
)
def test_generation_settings_are_checked(change, said):
    with pytest.raises(UsageError, match=said):
        GenerationSettings(**change)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [{"method": "sample", "temperature": low_or_high} for low_or_high in LIMITS["temperature"]]
    + [{"length_penalty": low_or_high} for low_or_high in LIMITS["length_penalty"]]
    + [{"num_beams": LIMITS["num_beams"][1]}],
)
def test_what_generation_settings_allow_can_be_generated(change):
    model = tiny_captioner()
    model.decoder.get_output_embeddings().weight.mul_(20)  # the logits of a model that is sure
    assert all(
        math.isfinite(caption.score) for caption in captions_from(model, prefix_of(model), GenerationSettings(**change))
    )
