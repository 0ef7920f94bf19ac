"""A captioner's run: the three modes, exact resume, the epoch chosen on groups that training has not seen."""

import json
import os
import signal
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
import yaml
from fakes import tiny_modalities

from gapless.captioning.captioner import Captioner
from gapless.captioning.data import FeatureDataset, dataset_of, divided
from gapless.captioning.settings import CaptionSettings
from gapless.captioning.training import (
    CaptionCollator,
    CaptionRun,
    CaptionTrainer,
    new_captioner,
    train_caption_run,
)
from gapless.core.errors import DataRefused, Interrupted, UsageError
from gapless.losses.base import METHODS
from gapless.losses.closing_control import ClosingControl
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.checkpoint import checkpoints_of, fault_of
from gapless.training.recipes import Recipe
from gapless.training.run import all_captions, new_model


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(
        tmp_path_factory.mktemp("data") / "phantom", num_pairs=110, num_validation=20, num_test=30, image_size=16
    )


@pytest.fixture(scope="module")
def aligner_directory(phantom, tmp_path_factory):
    torch.manual_seed(0)
    recipe = Recipe(modalities=tiny_modalities(), embedding_dim=24, vocab_size=400)
    directory = tmp_path_factory.mktemp("aligner")
    new_model(recipe, phantom.first_captions).save_pretrained(directory)
    return directory


def settings(mode="frozen", **changes) -> CaptionSettings:
    training = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "learning_rate": 3e-3,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "logging_steps": 1,
        **changes.pop("training", {}),
    }
    decoder = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
    return CaptionSettings(mode=mode, decoder=decoder, max_tokens=24, training=training, **changes)


def train(directory, manifest, out, asked, seed=0, **options):
    aligner = GaplessModel.from_pretrained(directory)
    run = CaptionRun.around(aligner, "aligner", seed, asked, manifest)
    return train_caption_run(run, aligner, manifest, out, **options)


def lines_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out):
    return [line["loss/caption"] for line in lines_of(out) if "loss/caption" in line]


def weights(out):
    return Captioner.from_pretrained(out / "model").state_dict()


@pytest.fixture(scope="module")
def finished(phantom, aligner_directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(aligner_directory, phantom, out, settings(noise_std=0.02))
    return out


def test_a_run_directory_is_like_any_other(finished, aligner_directory):
    assert {path.name for path in finished.iterdir()} == {"config.yaml", "metrics.jsonl", "checkpoints", "model"}
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert (config["seed"], config["settings"]["mode"]) == (0, "frozen")
    assert len(config["aligner"]["fingerprint"]) == 64
    assert losses(finished)[-1] < losses(finished)[0]
    assert all(fault_of(checkpoint) is None for checkpoint in checkpoints_of(finished / "checkpoints"))
    before = GaplessModel.from_pretrained(aligner_directory).state_dict()
    after = Captioner.from_pretrained(finished / "model").aligner.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(("mode", "stop"), [("frozen", 4), ("joint", 2)])
def test_a_resumed_run_equals_an_uninterrupted_one(
    phantom, aligner_directory, finished, tmp_path, monkeypatch, mode, stop
):
    """Noise, dropout and the choice of the best checkpoint included."""
    from gapless.training.callbacks import ProgressBar

    def stop_there(self, args, state, control, **kwargs):
        if state.global_step == stop + 1:
            raise KeyboardInterrupt

    asked = settings(mode, noise_std=0.02)
    whole = finished
    if mode != "frozen":
        whole = tmp_path / "whole"
        train(aligner_directory, phantom, whole, asked)
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_step_end", stop_there)
        with pytest.raises(KeyboardInterrupt):
            train(aligner_directory, phantom, tmp_path / "out", asked)
    train(aligner_directory, phantom, tmp_path / "out", asked, resume=True)
    assert losses(tmp_path / "out") == losses(whole)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "out").items())


def test_features_computed_once_train_as_raw_images_do(phantom, aligner_directory, finished, tmp_path, monkeypatch):
    """No room for features: the images are encoded at every step, and the losses are the same to rounding."""
    from gapless.captioning import data as caption_data

    monkeypatch.setattr(caption_data, "CACHE_BYTES", 0)
    train(aligner_directory, phantom, tmp_path / "raw", settings(noise_std=0.02))
    assert losses(tmp_path / "raw") == pytest.approx(losses(finished), rel=1e-4)


def test_joint_mode_moves_the_encoder_under_both_losses(phantom, aligner_directory, tmp_path):
    asked = settings("joint", follow="clock", training={"num_train_epochs": 1})
    train(aligner_directory, phantom, tmp_path / "joint", asked)
    first = lines_of(tmp_path / "joint")[0]
    gap = first["loss/contrastive"] + first["loss/alignment"] + first["loss/uniformity"]
    assert first["loss/total"] == pytest.approx(first["loss/caption"] + gap, rel=1e-5)
    before = GaplessModel.from_pretrained(aligner_directory).state_dict()
    after = Captioner.from_pretrained(tmp_path / "joint" / "model").aligner.state_dict()
    assert not torch.equal(before["heads.image.0.weight"], after["heads.image.0.weight"])


@pytest.fixture(scope="module")
def weights_by_step():
    """The controller gives a tenth a step: an aligner that has learnt nothing earns alignment no weight.

    The rules of the controller have tests of their own (test_losses_closing_control.py).
    """

    def observe(self, figures, limit, logit_scale, step):
        self.state = replace(self.state, weight=0.1 * step)
        return self.state.weight

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClosingControl, "observe", observe)
        yield


@pytest.fixture(scope="module")
def followed(phantom_with_pairs, aligner_directory, weights_by_step, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "followed"
    train(aligner_directory, phantom_with_pairs, out, settings("joint", follow="held-out"))
    return out


@pytest.fixture(scope="module")
def phantom_with_pairs(tmp_path_factory):
    """With validation rows enough to follow."""
    return write_phantom(
        tmp_path_factory.mktemp("data") / "phantom", num_pairs=110, num_validation=40, num_test=10, image_size=16
    )


def test_alignment_follows_held_out_pairs_and_uniformity_stays(followed):
    """The weights in force are read back from the terms of every step: total = caption + contrastive + w a + 1 u."""
    in_force, told = [], []
    for line in lines_of(followed):
        if "loss/total" in line:
            rest = line["loss/total"] - line["loss/caption"] - line["loss/contrastive"] - line["loss/uniformity"]
            in_force.append(rest / line["loss/alignment"])
        told += [line["closing/alignment_weight"]] if "closing/alignment_weight" in line else []
    assert in_force == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-4)
    assert told == pytest.approx([*in_force, 0.6], abs=1e-4)


def test_the_model_says_what_its_alignment_followed(followed):
    model = Captioner.from_pretrained(followed / "model")
    last = [line for line in lines_of(followed) if "closing/readiness" in line][-1]
    found = model.aligner.config.loss["followed"]
    assert found["alignment_weight"] == pytest.approx(last["closing/alignment_weight"])
    assert found["sentence"]


@pytest.mark.ci
def test_the_weights_that_were_followed_are_resumed(
    phantom_with_pairs, aligner_directory, followed, tmp_path, monkeypatch
):
    from gapless.training.callbacks import ProgressBar

    def stop_there(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt

    asked = settings("joint", follow="held-out")
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_step_end", stop_there)
        with pytest.raises(KeyboardInterrupt):
            train(aligner_directory, phantom_with_pairs, tmp_path / "out", asked)
    train(aligner_directory, phantom_with_pairs, tmp_path / "out", asked, resume=True)

    def closing(out):
        return [line for line in lines_of(out) if "closing/gap" in line]

    assert closing(tmp_path / "out") == closing(followed)
    expected = weights(followed)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "out").items())


@pytest.mark.parametrize(("follow", "weight"), [("clock", 1.0), ("nothing", 0.0)])
def test_closing_takes_the_weights_at_the_end_of_the_aligners_training_or_none(
    phantom_with_pairs, aligner_directory, tmp_path, follow, weight
):
    no_evaluation = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    asked = settings("joint", follow=follow, training={"max_steps": 2, **no_evaluation})
    train(aligner_directory, phantom_with_pairs, tmp_path / "run", asked)
    lines = lines_of(tmp_path / "run")
    assert not any("closing/readiness" in line for line in lines)
    in_force = [line for line in lines if "loss/total" in line]
    assert len(in_force) == 2
    for line in in_force:
        closing = weight * (line["loss/alignment"] + line["loss/uniformity"])
        assert line["loss/total"] == pytest.approx(line["loss/caption"] + line["loss/contrastive"] + closing, rel=1e-5)


def test_runs_of_earlier_versions_took_the_clock(phantom, aligner_directory):
    """Their `config.yaml` does not say what is followed, and a call that continues one must describe the same run."""
    aligner = GaplessModel.from_pretrained(aligner_directory)

    def described(mode, follow):
        run = CaptionRun.around(aligner, "aligner", 0, settings(mode, follow=follow), phantom)
        return run.to_dict()["settings"]

    assert described("joint", "held-out")["follow"] == "held-out"
    assert described("joint", "nothing")["follow"] == "nothing"
    assert "follow" not in described("joint", "clock")
    assert "follow" not in described("frozen", "nothing")
    with pytest.raises(UsageError, match="held-out"):
        settings("joint", follow="held-uot")
    with pytest.raises(UsageError, match="--follow is of mode joint; mode frozen does not train the aligner"):
        settings("frozen", follow="held-out")


def test_joint_mode_needs_something_to_learn(phantom, tmp_path):
    """Frozen encoders with identity heads, as of a foreign CLIP; one head with weights is enough, or one encoder."""

    def aligner(*, trainable, head):
        modalities = tiny_modalities()
        for spec in modalities.values():
            spec["encoder"]["trainable"] = trainable
            spec["head"] = head
        captions = phantom.first_captions
        return new_model(Recipe(modalities=modalities, embedding_dim=16, vocab_size=400), captions)

    linear = [{"kind": "linear", "size": 16}]
    for number, possible in enumerate((aligner(trainable=True, head=[]), aligner(trainable=False, head=linear))):
        possible.save_pretrained(tmp_path / f"aligner{number}")
        asked = settings("joint", training={"max_steps": 1, "eval_strategy": "no", "load_best_model_at_end": False})
        train(tmp_path / f"aligner{number}", phantom, tmp_path / f"run{number}", asked)
    aligner(trainable=False, head=[]).save_pretrained(tmp_path / "frozen")
    with pytest.raises(UsageError, match="nothing of this aligner can learn in mode joint"):
        train(tmp_path / "frozen", phantom, tmp_path / "run", settings("joint"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "what"), [("clip-refine", "reference"), ("soft-targets", "labels")])
def test_joint_mode_refuses_a_loss_that_compares_more_than_captions_bring(phantom, tmp_path, method, what):
    recipe = Recipe(tiny_modalities(), embedding_dim=16, vocab_size=400, loss=METHODS[method].settings)
    new_model(recipe, phantom.first_captions).save_pretrained(tmp_path / "aligner")
    with pytest.raises(UsageError, match=f"compares {what} too, which captions do not bring; use mode frozen"):
        train(tmp_path / "aligner", phantom, tmp_path / "run", settings("joint"))
    assert not (tmp_path / "run").exists()


def test_equal_captions_are_no_negatives_in_joint_mode(phantom, aligner_directory):
    """Three rows that say the same and one that does not: the three find each other as well as themselves."""
    asked = settings("joint")
    captions = all_captions(phantom.select("train"))
    model = new_captioner(GaplessModel.from_pretrained(aligner_directory), asked, captions)
    data = dataset_of(model, phantom.select("train"), "joint", ("image", "text"), training_seed=0)
    text = model.preprocessor("text")
    said = ["Same", "same", "other", "same "]
    inputs = CaptionCollator(model)(
        [{**data[row], "caption": caption, "text": text.prepare(caption)} for row, caption in enumerate(said)]
    )
    inputs.pop("ids")
    with torch.no_grad():
        found = model.eval()(**inputs).terms["contrastive"]
        images, texts = (model.aligner.embed(name, inputs["batch"][name]) for name in ("image", "text"))
        logits = model.aligner.loss.logit_scale.exp() * images @ texts.T
    is_other = torch.tensor([[(row == 2) != (column == 2) for column in range(4)] for row in range(4)])
    share = logits.exp().masked_fill(is_other, 0.0)
    expected = -sum((share.sum(d) / logits.exp().sum(d)).log().mean() for d in (0, 1)) / 2
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_text_mode_learns_from_text_and_never_opens_an_image(phantom, aligner_directory, tmp_path, monkeypatch):
    from gapless.modalities import image

    def closed(*_):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(image, "load_image", closed)
    train(aligner_directory, phantom, tmp_path / "text", settings("text", training={"num_train_epochs": 1}))
    model = Captioner.from_pretrained(tmp_path / "text" / "model")
    assert model.config.num_patches == 0
    data = dataset_of(model, phantom.select("train"), "text", ("image",), training_seed=0)
    assert isinstance(data, FeatureDataset)
    sample = data[(1, 3)]
    assert torch.allclose(sample["embedding"], model.aligner.encode("text", [sample["caption"]])[0], atol=1e-6)


def test_the_best_epoch_is_kept_not_the_last(phantom, aligner_directory, tmp_path):
    """A learning rate that destroys what was learnt: the weights are those of the lowest validation loss."""
    hot = settings(training={"learning_rate": 0.3, "warmup_steps": 0, "save_total_limit": 1})
    train(aligner_directory, phantom, tmp_path / "hot", hot)
    seen = {
        line["step"]: line["eval/caption/loss"] for line in lines_of(tmp_path / "hot") if "eval/caption/loss" in line
    }
    best = min(seen, key=seen.get)
    kept = {int(path.name.rpartition("-")[2]) for path in checkpoints_of(tmp_path / "hot" / "checkpoints")}
    assert best in kept
    checkpoint = Captioner.from_pretrained(tmp_path / "hot" / "checkpoints" / f"checkpoint-{best}").state_dict()
    assert all(torch.equal(value, checkpoint[name]) for name, value in weights(tmp_path / "hot").items())


def with_splits(manifest, splits):
    place = manifest.table.column_names.index("split")
    return Manifest(manifest.path, manifest.info, manifest.table.set_column(place, "split", pa.array(splits)))


def test_no_group_both_learns_and_chooses(phantom):
    groups = phantom.table["group"].to_pylist()
    train_rows, chosen = divided(phantom, 0.1)
    assert len(chosen) == 20
    # without a validation split a share of the train groups is held back
    without = with_splits(
        phantom, ["test" if split == "test" else "train" for split in phantom.table["split"].to_pylist()]
    )
    train_rows, chosen = divided(without, 0.2)
    learns, chooses = (set(rows.table["group"].to_pylist()) for rows in (train_rows, chosen))
    assert not learns & chooses
    assert len(train_rows) + len(chosen) == 80
    assert 0.1 < len(chosen) / 80 < 0.3
    # validation rows whose group is in train are left out
    first = groups[0]
    leaky = with_splits(
        phantom, ["validation" if row % 2 and groups[row] == first else "train" for row in range(len(groups))]
    )
    assert not set(divided(leaky, 0.2)[0].table["group"].to_pylist()) & set(
        divided(leaky, 0.2)[1].table["group"].to_pylist()
    )
    assert len(divided(without, 0.0)[1]) == 0


def test_every_group_weighs_the_same(phantom, aligner_directory, tmp_path):
    train(aligner_directory, phantom, tmp_path / "run", settings(training={"num_train_epochs": 1, "max_steps": 2}))
    model = Captioner.from_pretrained(tmp_path / "run" / "model").train(False)
    rows = phantom.select("validation")
    found: dict[str, list[float]] = {}
    for row, (group, caption) in enumerate(zip(rows.table["group"].to_pylist(), rows.first_captions, strict=True)):
        inputs = model.preprocessor("image").collate([model.preprocessor("image").prepare(rows.image_path(row))])
        with torch.no_grad():
            output = model(**model.encode_captions([caption]), batch={"image": inputs})
        found.setdefault(group, []).append(float(output.loss))
    assert len({len(values) for values in found.values()}) > 1, "the control: groups of different sizes"
    expected = sum(sum(values) / len(values) for values in found.values()) / len(found)
    evaluated = [line["eval/caption/loss"] for line in lines_of(tmp_path / "run") if "eval/caption/loss" in line]
    assert evaluated[-1] == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_trained_is_refused_before_anything_is_written(phantom, aligner_directory, finished, tmp_path):
    with pytest.raises(UsageError, match="frozen, joint, text"):
        CaptionSettings(mode="magic")
    with pytest.raises(UsageError, match="max_tokens"):
        CaptionSettings(max_tokens=2)
    with pytest.raises(UsageError, match="learning_rate"):
        train(aligner_directory, phantom, tmp_path / "a", settings(training={"learning_rte": 1}))
    with pytest.raises(DataRefused, match="fewer than one batch"):
        train(aligner_directory, phantom, tmp_path / "a", settings(training={"per_device_train_batch_size": 512}))
    with pytest.raises(UsageError, match="in use"):
        train(aligner_directory, phantom, finished, settings())
    with pytest.raises(UsageError, match=r"settings\.noise_std"):
        train(aligner_directory, phantom, finished, settings(noise_std=0.5), resume=True)
    assert not (tmp_path / "a").exists()


def test_what_sigterm_saved_is_there_beside_the_best(phantom, aligner_directory, tmp_path, monkeypatch):
    """One checkpoint is kept and an earlier one is the best: transformers would delete the newer one at the end."""
    figures = iter([1.0, 2.0])

    def evaluation_figures(self):
        value = next(figures)
        if value == 2.0:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"caption/loss": value}

    monkeypatch.setattr(CaptionTrainer, "evaluation_figures", evaluation_figures)
    with pytest.raises(Interrupted, match="at step 5 and saved"):
        train(aligner_directory, phantom, tmp_path / "run", settings(training={"save_total_limit": 1}))
    assert [path.name for path in checkpoints_of(tmp_path / "run" / "checkpoints")] == ["checkpoint-5", "checkpoint-2"]
