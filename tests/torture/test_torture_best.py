"""A run that ends with its best checkpoint: the best one and the newest one are kept, found again, and verified."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ledger import record
from processes import exit_code, forked
from small_runs import small_phantom, small_run

from gapless.core.errors import DataRefused, GaplessError
from gapless.training.callbacks import ProgressBar
from gapless.training.checkpoint import checkpoints_of, fault_of
from gapless.training.run import train_run
from gapless.training.trainer import AlignerTrainer

WEIGHTS = "model/model.safetensors"
BEST_AT = 2
TRAINING: dict[str, Any] = {
    "num_train_epochs": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "score",
    "greater_is_better": True,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_total_limit": 1,
}


def score(self: AlignerTrainer) -> dict[str, float]:
    """Of step 2 the highest, whatever was learned."""
    return {"score": -abs(self.state.global_step - BEST_AT)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_phantom(tmp_path_factory.mktemp("data"))


def life(data, folder: Path, out: str, stop: int | None = None, how: int = signal.SIGKILL, **training: Any) -> int:
    """Train in `folder` into the relative directory `out`, until a signal in the given step."""

    def stop_there(self: Any, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step == stop:
            os.kill(os.getpid(), how)

    def work() -> None:
        os.chdir(folder)
        with (
            patch.object(AlignerTrainer, "evaluation_figures", score),
            patch.object(ProgressBar, "on_step_begin", stop_there),
        ):
            run = small_run(data, **{**TRAINING, **training})
            train_run(run, data, Path(out), resume=(Path(out) / "config.yaml").exists())

    return exit_code(forked(work))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert life(data, folder, "run") == 0
    return folder / "run"


def names(out: Path) -> list[str]:
    return [checkpoint.name for checkpoint in checkpoints_of(out / "checkpoints")]


def test_the_end_has_the_best_weights_and_keeps_the_newest_checkpoint(whole):
    """Transformers removes it at the end when one is to be kept and another is the best."""
    assert names(whole) == ["checkpoint-8", f"checkpoint-{BEST_AT}"]
    best, newest = (whole / "checkpoints" / name / "model.safetensors" for name in reversed(names(whole)))
    assert (whole / WEIGHTS).read_bytes() == best.read_bytes() != newest.read_bytes()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_goes_on_elsewhere_with_its_newest_and_ends_with_its_best(data, whole, tmp_path, how):
    """Started as `run` in one folder, resumed as `deep/run` from another: a path in a checkpoint would not be found."""
    (tmp_path / "deep").mkdir()
    assert life(data, tmp_path / "deep", "run", stop=5, how=how) == (130 if how == signal.SIGTERM else -how)
    newest = 6 if how == signal.SIGTERM else 4  # the step of the signal is finished and saved, or lost
    assert names(tmp_path / "deep" / "run")[0] == f"checkpoint-{newest}"
    assert life(data, tmp_path, "deep/run") == 0
    same = {
        name: (tmp_path / "deep" / "run" / name).read_bytes() == (whole / name).read_bytes()
        for name in (WEIGHTS, "metrics.jsonl")
    }
    record(f"best checkpoint after {how.name}", **{f"same {name}": value for name, value in same.items()})
    assert all(same.values()), same


def test_a_best_evaluation_without_a_checkpoint_does_not_stop_a_resume(data, tmp_path):
    """Saved every fourth step, evaluated every second one: the best step has no checkpoint, and none is missing."""
    sparse = {"save_steps": 4}
    assert life(data, tmp_path, "whole", **sparse) == 0
    assert life(data, tmp_path, "run", stop=6, **sparse) == -signal.SIGKILL
    assert life(data, tmp_path, "run", **sparse) == 0
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_best_checkpoint_is_not_taken_for_the_best(data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / f"checkpoint-{BEST_AT}"
    damage(best / "model.safetensors")
    with pytest.raises(GaplessError, match=f"checkpoint-{BEST_AT} holds the best model so far and cannot be used"):
        train_run(small_run(data, **TRAINING), data, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert fault_of(best.with_name("checkpoint-8")) is None


def test_it_is_verified_once_more_before_the_end(data, tmp_path):
    """Damaged while training goes on."""

    def damage_and_score(self: AlignerTrainer) -> dict[str, float]:
        if self.state.global_step == 6:
            damage(tmp_path / "run" / "checkpoints" / f"checkpoint-{BEST_AT}" / "model.safetensors")
        return score(self)

    with (
        patch.object(AlignerTrainer, "evaluation_figures", damage_and_score),
        pytest.raises(GaplessError, match="cannot be used"),
    ):
        train_run(small_run(data, **TRAINING), data, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert fault_of(tmp_path / "run" / "checkpoints" / "checkpoint-8") is None


@pytest.mark.parametrize("asked", [{"max_steps": 6}, {"num_train_epochs": 1.5}])
def test_a_finished_run_that_is_resumed_takes_no_further_step(data, tmp_path, asked):
    """Where it ends inside an epoch, transformers would train one step more."""
    out = tmp_path / "run"
    run = small_run(data, eval_strategy="no", **asked)
    train_run(run, data, out)
    before = {name: (out / name).read_bytes() for name in (WEIGHTS, "metrics.jsonl")}
    assert names(out)[0] == "checkpoint-6"
    shutil.rmtree(out / "model")
    (out / ".model.partial-of-a-killed-one").mkdir()
    train_run(run, data, out, resume=True)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert names(out)[0] == "checkpoint-6"
    assert not list(out.glob(".model*"))


def test_a_damaged_metrics_file_is_named(data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:-3], *lines[2:], ""]))
    with pytest.raises(DataRefused, match=r"metrics\.jsonl is damaged at line 2"):
        train_run(small_run(data, **TRAINING), data, tmp_path / "run", resume=True)
