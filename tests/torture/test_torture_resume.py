"""A resumed run is the uninterrupted one: the same samples, losses, metrics file and weights, to the last bit."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ledger import record
from processes import exit_code, forked
from small_runs import BATCHES_IN_EPOCH, EPOCHS, STEPS_IN_EPOCH, small_phantom, small_run
from transformers import Trainer

from gapless.training.callbacks import EpochBeforeCheckpoint, ProgressBar
from gapless.training.run import train_run
from gapless.training.trainer import RunTrainer

STOPS = ("start", "mid-epoch", "mid-accumulation", "last batch", "epoch end")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_phantom(tmp_path_factory.mktemp("data"))


# --- a process that is stopped ------------------------------------------------------------------------------------


class Moment:
    """Counts batches, and kills its own process when the moment of a stop has come.

    Args:
        stop: one of `STOPS`, or None.
        epoch: in which it comes.
        how: the signal.
    """

    def __init__(self, stop: str | None, epoch: int, how: int) -> None:
        self.stop, self.epoch, self.how = stop, epoch, how

    def come(self) -> None:
        os.kill(os.getpid(), self.how)

    def at_train_begin(self) -> None:
        if self.stop == "start":
            self.come()

    def at_batch(self, epoch: float) -> None:
        """Before the batch that starts at this epoch is seen."""
        batch = round((epoch - self.epoch) * BATCHES_IN_EPOCH)
        moments = {"mid-epoch": 2, "mid-accumulation": 3, "last batch": BATCHES_IN_EPOCH - 1}
        if self.stop in moments and batch >= moments[self.stop]:
            self.come()

    def at_epoch_end(self, epoch: float) -> None:
        if self.stop == "epoch end" and epoch >= self.epoch + 1:
            self.come()


@contextmanager
def watched(seen: Path, moment: Moment) -> Iterator[None]:
    """Write every batch's step, samples and loss to `seen`, line by line, until the moment comes."""
    compute_loss = RunTrainer.compute_loss
    batches: dict[str, int] = {}

    def watch_loss(self: RunTrainer, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        step = self.state.global_step
        batches[f"of {step}"] = batches.get(f"of {step}", -1) + 1
        done = step // STEPS_IN_EPOCH * BATCHES_IN_EPOCH + step % STEPS_IN_EPOCH * 2 + batches[f"of {step}"]
        moment.at_batch(done / BATCHES_IN_EPOCH)
        ids = list(inputs["ids"])
        loss = compute_loss(self, model, inputs, *rest, **options)
        with seen.open("a") as stream:
            stream.write(json.dumps({"batch": done, "ids": ids, "loss": float(loss.detach())}) + "\n")
        return loss

    def begin(self: Any, args: Any, state: Any, control: Any, **options: Any) -> None:
        moment.at_train_begin()

    def epoch_ends(self: Any, args: Any, state: Any, control: Any, **options: Any) -> None:
        moment.at_epoch_end(state.epoch)

    with (
        patch.object(RunTrainer, "compute_loss", watch_loss),
        patch.object(ProgressBar, "on_train_begin", begin),
        patch.object(ProgressBar, "on_epoch_end", epoch_ends),
    ):
        yield


def life(
    data,
    out: Path,
    stop: str | None = None,
    epoch: int = 0,
    how: int = signal.SIGKILL,
    breakage: AbstractContextManager[Any] | None = None,
    **training: Any,
) -> int:
    """One process that trains, or goes on training, until its stop; its exit code."""
    seen = out.with_name(f"{out.name}.seen")

    def work() -> None:
        with breakage or nullcontext(), watched(seen, Moment(stop, epoch, how)):
            train_run(small_run(data, **training), data, out, resume=(out / "config.yaml").exists())

    return exit_code(forked(work))


def batches_of(out: Path) -> list[dict[str, Any]]:
    """What the run that was left standing has seen: a batch that was seen again replaces what came at or after it."""
    effective: list[dict[str, Any]] = []
    for line in map(json.loads, out.with_name(f"{out.name}.seen").read_text().splitlines()):
        effective = [*effective[: line["batch"]], line]
    assert [line["batch"] for line in effective] == list(range(EPOCHS * BATCHES_IN_EPOCH))
    return effective


def differences(one: Path, other: Path) -> dict[str, Any]:
    """How two finished runs differ; all 0 or False for one and the same."""
    pairs = list(zip(batches_of(one), batches_of(other), strict=True))
    files = ("metrics.jsonl", "model/model.safetensors")
    return {
        "largest loss difference": max(abs(a["loss"] - b["loss"]) for a, b in pairs),
        "batches of other samples": sum(a["ids"] != b["ids"] for a, b in pairs),
        **{f"other {name}": (one / name).read_bytes() != (other / name).read_bytes() for name in files},
    }


@pytest.fixture(scope="module", params=[0, 2], ids=["0 workers", "2 workers"])
def whole(request, data, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """An uninterrupted run, and what was special about its training."""
    out = tmp_path_factory.mktemp("whole") / "whole"
    training = {"dataloader_num_workers": request.param}
    assert life(data, out, **training) == 0
    return out, training


def check_stops(data, whole, tmp_path: Path, how: int, stops: dict[str, list[int]]) -> None:
    """Stop a run at a moment of each of these epochs, resume it each time, compare it with the uninterrupted one."""
    reference, training = whole
    worst: dict[str, Any] = {}
    for stop, epochs in stops.items():
        out = tmp_path / f"{stop}-{len(epochs)}"
        for epoch in epochs:
            assert life(data, out, stop, epoch, how, **training) == (-how if how == signal.SIGKILL else 130), stop
        assert life(data, out, **training) == 0
        found = differences(reference, out)
        worst = {name: max(value, worst.get(name, value)) for name, value in found.items()}
        assert not any(found.values()), (stop, epochs, found)
    record(
        f"exact resume, {training['dataloader_num_workers']} workers, {signal.Signals(how).name}",
        runs=len(stops),
        stops=sum(map(len, stops.values())),
        **worst,
    )


BREAKAGES = {
    "random state": ("mid-epoch", patch.object(RunTrainer, "_load_rng_state", lambda self, checkpoint: None)),
    "sums": ("mid-epoch", patch.object(RunTrainer, "_load_from_checkpoint", Trainer._load_from_checkpoint)),
    "end of the epoch": ("epoch end", patch.object(EpochBeforeCheckpoint, "on_step_end", lambda *args, **kwargs: None)),
}


def check_breakage(data, whole, tmp_path: Path, forgotten: str) -> None:
    """The control: a resume that forgets something must be told from one that is exact."""
    reference, training = whole
    stop, breakage = BREAKAGES[forgotten]
    assert life(data, tmp_path / "run", stop, 1, breakage=breakage, **training) == -signal.SIGKILL
    assert life(data, tmp_path / "run", breakage=breakage, **training) == 0
    found = differences(reference, tmp_path / "run")
    record(f"exact resume, control that forgets the {forgotten}", **found)
    assert found["other metrics.jsonl"]


@pytest.mark.parametrize("whole", [2], indirect=True)
def test_a_forgetful_resume_is_told_from_an_exact_one_short(data, whole, tmp_path):
    check_breakage(data, whole, tmp_path, "random state")


@pytest.mark.torture
@pytest.mark.parametrize("forgotten", BREAKAGES)
def test_a_forgetful_resume_is_told_from_an_exact_one(data, whole, tmp_path, forgotten):
    check_breakage(data, whole, tmp_path, forgotten)


@pytest.mark.parametrize("whole", [2], indirect=True)
def test_a_resumed_run_is_the_uninterrupted_one_short(data, whole, tmp_path):
    check_stops(data, whole, tmp_path, signal.SIGKILL, {"mid-accumulation": [1]})


@pytest.mark.torture
@pytest.mark.parametrize("num_resumes", [1, 2, 3])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_resumed_run_is_the_uninterrupted_one(data, whole, tmp_path, num_resumes, how):
    """Dying by SIGKILL it goes on from its last checkpoint, by SIGTERM from the step in which the signal came."""
    epochs = {1: [1], 2: [0, 2], 3: [0, 1, 2]}[num_resumes]
    check_stops(data, whole, tmp_path, how, dict.fromkeys(STOPS, epochs))
