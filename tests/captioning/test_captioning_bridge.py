"""The bridge of a text-only captioner, and noise that is fitted to pairs."""

import json

import pytest
import torch
from fakes import tiny_modalities

from gapless.captioning import bridge
from gapless.captioning.bridge import bridged, noise_of, noise_of_cosine
from gapless.captioning.captioner import Captioner
from gapless.captioning.route import Route
from gapless.captioning.training import CaptionRun, CaptionSettings, train_caption_run
from gapless.core.errors import DataRefused, UsageError
from gapless.core.geometry import unit_norm
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.recipes import Recipe
from gapless.training.run import new_model

TRAINING = {"num_train_epochs": 1, "per_device_train_batch_size": 16, "eval_strategy": "no", "save_strategy": "no"}
DECODER = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    place = tmp_path_factory.mktemp("data") / "phantom"
    return write_phantom(place, num_pairs=110, num_validation=20, num_test=30, image_size=16)


@pytest.fixture(scope="module")
def aligner(phantom, tmp_path_factory):
    torch.manual_seed(0)
    recipe = Recipe(modalities=tiny_modalities(), embedding_dim=24, vocab_size=400)
    place = tmp_path_factory.mktemp("aligner")
    new_model(recipe, phantom.first_captions).save_pretrained(place)
    return place


def trained(place, phantom, out, **changes):
    model = GaplessModel.from_pretrained(place)
    asked = CaptionSettings(mode="text", decoder=DECODER, max_tokens=24, training=TRAINING, **changes)
    train_caption_run(CaptionRun.around(model, "aligner", 0, asked, phantom), model, phantom, out)
    return Captioner.from_pretrained(out / "model").train(False)


def rows_of(captioner, phantom):
    validation = phantom.select("validation")
    aligner = captioner.aligner
    images = aligner.encode("image", [validation.image_path(row) for row in range(len(validation))])
    return images, aligner.encode("text", validation.first_captions)


def test_the_bridge_is_in_the_saved_captioner(phantom, aligner, tmp_path):
    """Centred by the train rows: nearer centroids on the validation rows than those of the control without a bridge."""
    plain = trained(aligner, phantom, tmp_path / "plain")
    closed = trained(aligner, phantom, tmp_path / "bridged", bridge="center", noise_std="fitted")
    distances = [float((a.mean(0) - b.mean(0)).norm()) for a, b in (rows_of(plain, phantom), rows_of(closed, phantom))]
    assert distances[1] < 0.7 * distances[0]
    images, texts = rows_of(closed, phantom)
    cosine = float((images * texts).sum(dim=1).mean())
    assert closed.config.noise_std == pytest.approx(noise_of_cosine(cosine, 24), rel=1e-4)
    assert plain.config.noise_std == 0
    described = (tmp_path / "bridged" / "config.yaml").read_text(encoding="utf-8")
    assert "bridge: center" in described
    assert "bridge" not in (tmp_path / "plain" / "config.yaml").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "bridged" / "model" / "config.json").read_text())["noise_std"] > 0


def test_the_noise_turns_a_row_by_the_angle_of_the_pairs():
    generator = torch.Generator().manual_seed(0)
    row = unit_norm(torch.randn(1, 512, generator=generator))
    for cosine in (0.2, 0.6, 0.95):
        noise = noise_of_cosine(cosine, 512) * torch.randn(4000, 512, generator=generator)
        turned = (unit_norm(row + noise) @ row.T).mean()
        assert float(turned) == pytest.approx(cosine, abs=0.01)


def test_without_a_pair_the_noise_is_fitted_to_the_texts(phantom, aligner, monkeypatch):
    model = GaplessModel.from_pretrained(aligner)
    train, route = phantom.select("train"), Route()
    nothing = Manifest(train.path, train.info, train.table.slice(0, 0))
    of_pairs = noise_of("fitted", model, (nothing, train), route)
    texts = model.encode("text", sorted(set(train.first_captions)))
    scores = texts @ texts.T - 2 * torch.eye(len(texts))
    expected = noise_of_cosine(float(scores.max(dim=1).values.mean()), 24)
    without = Route({"absent": 1.0})
    assert noise_of(0.04, model, (), without) == 0.04
    assert of_pairs > 0
    monkeypatch.setattr(bridge, "_complete", lambda rows, route: nothing)
    assert noise_of("fitted", model, (nothing, train), route) == pytest.approx(expected, rel=1e-4)


def test_what_no_bridge_can_be_made_of_is_refused(phantom, aligner, tmp_path):
    with pytest.raises(UsageError, match="bridge 'ccca'"):
        CaptionSettings(mode="text", bridge="ccca")
    with pytest.raises(UsageError, match="--bridge is of mode text"):
        CaptionSettings(mode="frozen", bridge="cca")
    for noise in (-1, "most", float("nan"), True):
        with pytest.raises(UsageError, match="noise_std is a number of at least 0, or fitted"):
            CaptionSettings(noise_std=noise)
    train = phantom.select("train")
    group = train.table["group"].to_pylist()[0]
    few = train.table.filter([one == group for one in train.table["group"].to_pylist()])
    model = GaplessModel.from_pretrained(aligner)
    with pytest.raises(DataRefused, match="fewer than 4 groups; use --bridge none"):
        bridged(model, Manifest(train.path, train.info, few), phantom.select("validation"), Route(), "cca", 0)
