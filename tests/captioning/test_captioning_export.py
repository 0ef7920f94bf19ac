"""A captioner as ONNX graphs: greedy captions are those of Python."""

import json

import pytest
import torch
from fakes import CAPTIONS, noise_images, tiny_model

from gapless.captioning.captioner import Captioner, assemble_captioner
from gapless.captioning.export import export_captioner, greedy_ids
from gapless.captioning.generation import GenerationSettings, captions_from
from gapless.captioning.route import Route
from gapless.cli.main import main
from gapless.core.errors import UsageError

DECODERS = {
    "bert": {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_head": 2},
}


def learnt(family, use_patches=True) -> Captioner:
    """A captioner that learnt four captions, so that it ends them."""
    torch.manual_seed(0)
    options = {"use_patches": use_patches, "max_tokens": 24, "vocab_size": 400}
    model = assemble_captioner(tiny_model(), DECODERS[family], CAPTIONS, **options).train()
    images = model.preprocessor("image").collate(noise_images(4))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**model.encode_captions(CAPTIONS[:4]), batch={"image": images}).loss.backward()
        optimizer.step()
    return model.train(False)


def test_the_loop_of_greedy_ids_gives_the_captions_of_generate():
    """The control: a step that ignores the image gives others."""
    model = learnt("bert").requires_grad_(False)
    prefix = model.prefix(*model.features(model.preprocessor("image").collate(noise_images(4))))
    expected = [caption.text for caption in captions_from(model, prefix, GenerationSettings("greedy"))]

    def loop(rows):
        def step(ids):
            return model.decoder(input_ids=torch.from_numpy(ids), encoder_hidden_states=rows).logits[:, -1]

        ids = greedy_ids(step, len(rows), model.special_ids(), model.config.max_tokens)
        return [" ".join(text.split()) for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    assert loop(prefix) == expected
    assert len(set(expected)) > 1
    assert loop(prefix.roll(1, dims=0)) != expected


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_the_graphs_give_the_greedy_captions_of_python(family, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    model = learnt(family)
    model.save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--to", "onnx", "--out", str(tmp_path / "onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["captions"] == 6
    about = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    graphs = [onnxruntime.InferenceSession(tmp_path / "onnx" / about["files"][name]) for name in ("prefix", "step")]
    inputs = model.preprocessor("image").collate(noise_images(4))
    rows = graphs[0].run(None, {name: inputs[name].numpy() for name in about["inputs"]})[0]
    ids = greedy_ids(
        lambda so_far: graphs[1].run(None, {"input_ids": so_far, "prefix": rows})[0], 4, about, about["max_tokens"]
    )
    texts = [" ".join(text.split()) for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]
    with torch.no_grad():
        own = captions_from(model, model.prefix(*model.features(inputs)), GenerationSettings("greedy"))
    assert texts == [caption.text for caption in own]
    assert len(set(texts)) > 1, "the control: different images have different captions"


def test_a_captioner_of_several_sources_is_refused(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    model = learnt("bert", use_patches=False)
    model.config.sources, model.config.target = {"image": 1.0, "text": 1.0}, "findings"
    model.route = Route(model.config.sources, "findings")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="a graph takes one source"):
        export_captioner(tmp_path / "model", out=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
