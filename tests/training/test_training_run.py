"""Training through transformers.Trainer: the temperature rules, exact resume, evaluation that disturbs nothing."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
import yaml
from fakes import tiny_modalities

from gapless.core.errors import DataRefused, GaplessError, UsageError
from gapless.losses.base import METHODS
from gapless.losses.gap_closing_methods import GapClosingSettings
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.checkpoint import checkpoints_of, fault_of, newest_valid
from gapless.training.evaluate import main_label, refuse_other_figures
from gapless.training.recipes import Recipe, apply_method
from gapless.training.run import Run, train_run, training_arguments


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(
        tmp_path_factory.mktemp("data") / "phantom", num_pairs=120, num_validation=20, num_test=30, image_size=16
    )


def tiny_recipe(**training) -> Recipe:
    return Recipe(
        modalities=tiny_modalities(),
        embedding_dim=24,
        vocab_size=400,
        augment_images=True,
        training={
            "num_train_epochs": 2,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "eval_strategy": "epoch",
            "save_strategy": "steps",
            "save_steps": 2,
            "logging_steps": 1,
            **training,
        },
    )


def tiny_run(data, method="gapless", seed=0, **training) -> Run:
    return Run("tiny", method, seed, apply_method(tiny_recipe(**training), method), data.fingerprint)


def weights(directory) -> dict:
    return GaplessModel.from_pretrained(directory / "model").state_dict()


def losses(directory) -> list[float]:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line["loss/total"] for line in lines if "loss/total" in line]


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train_run(tiny_run(phantom), phantom, out)
    return out


def test_a_run_directory_holds_what_the_design_says(finished):
    assert {path.name for path in finished.iterdir()} == {"config.yaml", "metrics.jsonl", "checkpoints", "model"}
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert (config["recipe"], config["method"], config["seed"]) == ("tiny", "gapless", 0)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/contrastive", "loss/alignment", "loss/uniformity", "logit_scale"} <= lines[0].keys()
    assert any("eval/retrieval/mean/R@10" in line for line in lines)
    assert all(fault_of(checkpoint) is None for checkpoint in checkpoints_of(finished / "checkpoints"))
    assert not list(finished.rglob("*.bin"))  # nothing pickled that nobody reads


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_resumed_run_equals_an_uninterrupted_one(phantom, finished, tmp_path, stop, monkeypatch):
    """Killed after `stop` steps, mid-epoch or at its end; the losses and the final weights are the same bits."""
    from gapless.training.callbacks import ProgressBar

    def stop_there(self, args, state, control, **kwargs):
        if state.global_step == stop + 1:
            raise KeyboardInterrupt

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "on_step_end", stop_there)
        with pytest.raises(KeyboardInterrupt):
            train_run(tiny_run(phantom), phantom, out)
    train_run(tiny_run(phantom), phantom, out, resume=True)
    assert losses(out) == losses(finished)
    whole = weights(finished)
    assert all(torch.equal(value, whole[name]) for name, value in weights(out).items())


def test_workers_change_nothing(phantom, finished, tmp_path):
    train_run(tiny_run(phantom, dataloader_num_workers=2), phantom, tmp_path / "two")
    assert losses(tmp_path / "two") == losses(finished)


def test_evaluation_does_not_disturb_training(phantom, finished, tmp_path):
    train_run(tiny_run(phantom, eval_strategy="no"), phantom, tmp_path / "blind")
    assert losses(tmp_path / "blind") == losses(finished)


def test_another_seed_is_another_run(phantom, finished, tmp_path):
    train_run(tiny_run(phantom, seed=1), phantom, tmp_path / "other")
    assert losses(tmp_path / "other") != losses(finished)


def test_resume_passes_over_damaged_checkpoints_and_says_which(phantom, finished, tmp_path):
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    newest, second, *_ = checkpoints_of(out / "checkpoints")
    weights_file = newest / "model.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1
    weights_file.write_bytes(content)
    found, passed_over = newest_valid(out / "checkpoints")
    assert found == second
    assert list(passed_over) == [newest.name]
    assert "model.safetensors" in passed_over[newest.name]
    passed = train_run(tiny_run(phantom), phantom, out, resume=True)
    assert list(passed) == [newest.name]
    assert all(torch.equal(value, weights(finished)[name]) for name, value in weights(out).items())


def test_a_changed_recipe_is_refused_on_resume_and_the_key_is_named(phantom, finished):
    with pytest.raises(UsageError, match=r"settings\.training\.learning_rate"):
        train_run(tiny_run(phantom, learning_rate=5e-4), phantom, finished, resume=True)


def test_an_output_directory_in_use_is_refused_and_kept(phantom, finished):
    before = sorted(path.name for path in finished.rglob("*"))
    with pytest.raises(UsageError, match="in use"):
        train_run(tiny_run(phantom), phantom, finished)
    assert sorted(path.name for path in finished.rglob("*")) == before


def test_fewer_rows_than_a_batch_are_refused(phantom, tmp_path):
    with pytest.raises(DataRefused, match="fewer than one batch of 512"):
        train_run(tiny_run(phantom, per_device_train_batch_size=512), phantom, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("checked", [True, False])
def test_a_loss_that_is_not_finite_stops_and_names_the_batch(phantom, tmp_path, monkeypatch, checked):
    """Where the loss looks at its rows (on the CPU), and where it does not (an accelerator)."""
    from gapless.losses import batch

    if not checked:
        monkeypatch.setattr(batch, "check_batch", lambda *args: None)
    original = GaplessModel.embed
    monkeypatch.setattr(GaplessModel, "embed", lambda self, *args: original(self, *args) * float("nan"))
    with pytest.raises(GaplessError, match=r"stopped at step 0 on the batch of P\d+, P\d+.*not finite"):
        train_run(tiny_run(phantom), phantom, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_resume_that_fails_keeps_what_was_finished(phantom, tmp_path, monkeypatch):
    out = tmp_path / "run"
    train_run(tiny_run(phantom, save_strategy="no"), phantom, out)
    before = sorted(path.name for path in out.rglob("*"))
    monkeypatch.setattr(GaplessModel, "embed", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_run(tiny_run(phantom, save_strategy="no"), phantom, out, resume=True)
    assert sorted(path.name for path in out.rglob("*")) == before


def test_an_unknown_training_argument_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="learning_rate"):
        training_arguments(tiny_recipe(learning_rte=1.0), tmp_path, 0, has_evaluation=False)


@pytest.mark.parametrize(
    ("training", "said"),
    [({"learning_rate": "abc"}, "must be a number"), ({"eval_strategy": "sometimes"}, "training: ")],
)
def test_training_arguments_of_the_wrong_kind_are_named(tmp_path, training, said):
    with pytest.raises(UsageError, match=said):
        training_arguments(tiny_recipe(**training), tmp_path, 0, has_evaluation=True)


def test_figures_of_one_split_are_not_written_over_another(phantom, finished, tmp_path):
    import shutil

    from gapless.training.evaluate import evaluate

    shutil.copytree(finished, tmp_path / "run")
    assert evaluate(tmp_path / "run", data=phantom, split="test", num_bootstrap=0).n == 30
    with pytest.raises(UsageError, match="--out"):
        evaluate(tmp_path / "run", data=phantom, split="validation", num_bootstrap=0)
    assert (
        evaluate(tmp_path / "run", data=phantom, split="validation", num_bootstrap=0, out=tmp_path / "validation").n
        == 20
    )


def test_figures_are_not_written_over_scores_of_captions(tmp_path):
    (tmp_path / "results.json").write_text('{"kind": "captions", "split": "test", "data": {"fingerprint": "a"}}')
    refuse_other_figures(tmp_path, "test", "a", "captions")
    with pytest.raises(UsageError, match="figures of captions"):
        refuse_other_figures(tmp_path, "test", "a")


def test_one_entry_of_a_modality_can_be_changed():
    from gapless.cli.training import merged

    recipe = tiny_modalities()
    changed = merged({"image": {"input.size": 8}, "text": recipe["text"]}, recipe)
    assert changed["image"]["input"] == {"kind": "image", "size": 8, "channels": 1}
    assert changed["image"]["encoder"] == recipe["image"]["encoder"]
    assert changed["text"] == recipe["text"]


def test_the_figures_at_the_end_of_a_training_have_their_names(tmp_path):
    from gapless.cli.training import SUMMARY_FIGURES, trained_line

    trained = SimpleNamespace(run=tmp_path, validation=dict.fromkeys(SUMMARY_FIGURES, 0.5))
    line = trained_line(trained, 3.0).splitlines()[1]
    assert line == "validation rows: centroid distance 0.500; true-pair cosine 0.500; R@10, mean 0.500"


def test_yaml_no_is_the_strategy_no(tmp_path):
    arguments = training_arguments(tiny_recipe(eval_strategy=False), tmp_path, 0, has_evaluation=True)
    assert arguments.eval_strategy == "no"


def trained_parameters(model, steps=10):
    from fakes import CAPTIONS, noise_images

    batch = {
        "text": model.preprocessor("text").collate(CAPTIONS),
        "image": model.preprocessor("image").collate(noise_images(len(CAPTIONS))),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(steps):
        model(batch=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_after_ten_steps_every_learnable_parameter_has_moved_and_no_other():
    from fakes import tiny_model

    model = tiny_model().train()
    unused = {name for name, _ in model.named_parameters() if ".pooler." in name}  # BERT's own pooler, not asked for
    assert trained_parameters(model) == {name for name, _ in model.named_parameters()} - unused
    fixed = tiny_model(loss={"learn_temperature": False}).train()
    assert not any(name.endswith("logit_scale") for name in trained_parameters(fixed))


def test_the_temperature_has_no_weight_decay_and_stays_in_bounds(phantom, tmp_path):
    run = tiny_run(phantom, learning_rate=5.0, num_train_epochs=1, eval_strategy="no")
    train_run(run, phantom, tmp_path / "hot")
    scale = weights(tmp_path / "hot")["loss.logit_scale"]
    assert scale.dtype == torch.float32
    assert float(scale) <= torch.tensor(100.0).log()


def test_a_schedule_reaches_the_loss_and_survives_saving(phantom, tmp_path):
    recipe = tiny_recipe(eval_strategy="no")
    recipe = replace(recipe, loss=replace(recipe.loss, alignment_weight=[[0.0, 0.0], [1.0, 2.0]]))
    train_run(Run("tiny", "gapless", 0, recipe, phantom.fingerprint), phantom, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in (line for line in lines if "loss/total" in line):
        weight = 2.0 * (line["step"] - 1) / 8  # 8 steps in all
        total = line["loss/contrastive"] + weight * line["loss/alignment"] + line["loss/uniformity"]
        assert line["loss/total"] == pytest.approx(total, abs=1e-5)
    again = GaplessModel.from_pretrained(tmp_path / "run" / "model")
    assert again.loss.alignment_weight(0.5) == 1.0


def test_methods_differ_by_weights_alone():
    base = GapClosingSettings()
    clip = replace(base, alignment_weight=0.0, uniformity_weight=0.0)
    assert METHODS["clip"].settings == clip
    assert METHODS["align-only"].settings == replace(base, uniformity_weight=0.0)
    assert METHODS["uniform-only"].settings == replace(base, alignment_weight=0.0)
    assert METHODS["gapless-published"].settings == base
    assert METHODS["clip-fixed"].settings == replace(clip, learn_temperature=False)


def test_a_recipe_s_own_loss_settings_reach_every_method_that_leaves_them_open():
    recipe = replace(tiny_recipe(), loss=GapClosingSettings(temperature=0.2, alignment_weight=3.0))
    assert apply_method(recipe, "clip").loss == replace(METHODS["clip"].settings, temperature=0.2)
    assert apply_method(recipe, "clip-fixed").loss == METHODS["clip-fixed"].settings
    assert apply_method(recipe, "gapless", {"mask_duplicates": True}).loss == replace(
        METHODS["gapless"].settings, temperature=0.2, mask_duplicates=True
    )


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UsageError, match=r"known: .*gapless-published"):
        apply_method(tiny_recipe(), "clipp")


def test_the_main_label_is_one_that_tells_rows_apart(phantom):
    """A hospital that has only CT is evaluated by its next label, or by none."""
    size = len(phantom)
    labels = {"acquisition": ["CT"] * size, "region": ["chest", "head"] * (size // 2)}
    columns = [name for name in phantom.table.column_names if name not in phantom.labels]
    table = phantom.table.select(columns)
    for name, values in labels.items():
        table = table.append_column(name, pa.array(values))
    rows = Manifest(phantom.path, {**phantom.info, "labels": list(labels)}, table)
    assert main_label(rows) == "region"
    assert main_label(Manifest(rows.path, rows.info, table.slice(0, 1))) is None
