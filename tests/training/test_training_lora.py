"""The recipes of the paper's encoders, with small sizes: adapters, frozen towers, bf16, checkpointing."""

from dataclasses import replace

import pytest
import torch
from fakes import CAPTIONS, noise_images

from gapless.inference.embed import preprocessors_of
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.recipes import Recipe, apply_method, get_recipe
from gapless.training.run import Run, new_model, train_run

pytest.importorskip("timm")
pytest.importorskip("peft")
SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 28}
SMALL_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TRAINING = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 16,
    "save_strategy": "steps",
    "save_steps": 3,
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "use_cpu": True,
}


def small(name: str, **changes) -> Recipe:
    """The recipe of that name with the paper's architectures at the size of a toy, and no downloaded weights."""
    recipe = get_recipe(name)
    image, text = (
        {**recipe.modalities[one], "encoder": {**recipe.modalities[one]["encoder"], "pretrained": None, **changes}}
        for one in ("image", "text")
    )
    image["input"] = {**image["input"], "size": 28}
    image["encoder"]["config"] = {**image["encoder"]["config"], "model_args": SMALL_VIT}
    text["encoder"]["config"] = {**text["encoder"]["config"], **SMALL_BERT}
    return replace(
        recipe,
        modalities={"image": image, "text": text},
        embedding_dim=16,
        vocab_size=400,
        micro_batch_size=recipe.micro_batch_size and 8,
        training={**recipe.training, **TRAINING},
    )


def run_of(recipe: Recipe, data) -> Run:
    return Run("small", "gapless-published", 0, apply_method(recipe, "gapless-published"), data.fingerprint)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(
        tmp_path_factory.mktemp("lora") / "data", num_pairs=80, num_validation=10, num_test=10, image_size=28
    )


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("lora-runs") / "run"
    train_run(run_of(small("roco-eva-bert-lora"), phantom), phantom, out)
    return out


def weights(run) -> dict[str, torch.Tensor]:
    return GaplessModel.from_pretrained(run / "model").state_dict()


def test_the_finished_model_has_no_adapters(phantom, finished):
    """It is loaded, exported and measured without `peft`."""
    start = new_model(small("roco-eva-bert", lora=None), ["a caption"] * 4)
    assert weights(finished).keys() == start.state_dict().keys()


def test_only_adapters_and_heads_move(finished):
    checkpoint = sorted((finished / "checkpoints").iterdir())
    first, last = (GaplessModel.from_pretrained(path).state_dict() for path in (checkpoint[0], checkpoint[-1]))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert any(name.startswith("encoders.image") for name in moved)
    assert any(name.startswith("encoders.text") for name in moved)
    assert all("lora_" in name for name in moved if name.startswith("encoders"))
    assert any(name.startswith("heads") for name in moved)


def test_a_resumed_run_equals_an_uninterrupted_one(phantom, finished, tmp_path, monkeypatch):
    from gapless.training.callbacks import ProgressBar

    def stop_there(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt

    run = run_of(small("roco-eva-bert-lora"), phantom)
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_step_end", stop_there)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, phantom, tmp_path / "run")
    train_run(run, phantom, tmp_path / "run", resume=True)
    whole = weights(finished)
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path / "run").items())


def test_checkpointed_adapters_of_the_first_layer_get_a_gradient(phantom):
    """With frozen inputs, the reentrant kind of gradient checkpointing would give none, silently."""
    model = new_model(small("roco-eva-bert-lora"), ["a caption"] * 4)
    model.activation_checkpointing_enable()
    model.train()
    raw = {"image": noise_images(4, 28), "text": CAPTIONS[:4]}
    batch = {
        name: part.collate([part.prepare(one) for one in raw[name]]) for name, part in preprocessors_of(model).items()
    }
    model(batch).loss.backward()
    first = [
        weight
        for name, weight in model.named_parameters()
        if "lora_B" in name and (".blocks.0." in name or ".layer.0." in name)
    ]
    assert len(first) == 4 + 6
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in first)


def test_frozen_towers_train_their_heads_alone(phantom, tmp_path):
    recipe = small("roco-eva-bert", trainable=False)
    train_run(run_of(recipe, phantom), phantom, tmp_path / "run")
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    first, last = (GaplessModel.from_pretrained(path).state_dict() for path in (checkpoints[0], checkpoints[-1]))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert {name.split(".")[0] for name in moved} == {"heads", "loss"}
