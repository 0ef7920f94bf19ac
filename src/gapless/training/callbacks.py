"""Callbacks of `transformers.Trainer`: schedules and clamps of the loss, metrics.jsonl, SIGTERM, progress."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gapless.core.errors import DataRefused
from gapless.core.files import strict_json, write_text
from gapless.core.progress import progress_bar, say
from gapless.losses.base import after_step, begin_step, set_progress

HIDDEN_LOGS = ("total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")


class LossRules(TrainerCallback):
    """Sets the progress of the loss and begins its draws before each step; the loss clamps its parameters after it.

    Args:
        loss: a `Loss`.
        progress: a constant progress for its schedules, in [0, 1]; None is the share of steps that are done.
    """

    def __init__(self, loss: nn.Module, progress: float | None = None) -> None:
        self.loss = loss
        self.progress = progress

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        reached = min(1.0, state.global_step / max(1, state.max_steps))
        set_progress(self.loss, reached if self.progress is None else self.progress)
        begin_step(self.loss, args.seed, state.global_step)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        after_step(self.loss)


def _closes_epoch(state: TrainerState) -> bool:
    """Whether the step just done is the last of its epoch, or of the training."""
    return float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps


class EpochBeforeCheckpoint(TrainerCallback):
    """Delays the checkpoint of an epoch's last step until after the epoch's log and evaluation.

    Transformers saves it before them. A run that is resumed from it starts the next epoch, so that the log and the
    evaluation would be missing.
    """

    def __init__(self) -> None:
        self.is_waiting = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_save and _closes_epoch(state):
            control.should_save, self.is_waiting = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_waiting:
            control.should_save, self.is_waiting = True, False


class StopRequest(TrainerCallback):
    """Ends the training at SIGTERM, which schedulers send before they kill: the step is finished, and saved.

    Of several processes that train together any may be signalled, at any moment. At the end of each step they tell each
    other, so that all of them save and end after the same one. They do so over a group of CPU processes of their own:
    a tensor on an accelerator would make every step wait for it.

    Attributes:
        was_made: whether the training ends: settled at the end of a step, and then the same in all processes. A signal
            that arrives at any other moment counts at the end of the step after it.
    """

    def __init__(self) -> None:
        self.was_made = False
        self._asked = False  # of this process alone
        self._group: Any = None  # of torch.distributed, where several processes train

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGTERM in the block. Only the main thread can; in any other thread nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda number, frame: self.make())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def make(self) -> None:
        """Ask for the end of the training after the current step."""
        self._asked = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.world_size > 1:
            self._group = dist.new_group(backend="gloo")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        requests = torch.tensor([int(self._asked)])
        if self._group is not None:
            dist.all_reduce(requests, dist.ReduceOp.MAX, group=self._group)
        self.was_made = bool(requests.item())
        if self.was_made:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop the log, evaluation and checkpoint of an epoch that the stop cut short; the resumed run makes them."""
        if control.should_training_stop and self.was_made and not _closes_epoch(state):
            control.should_log = control.should_evaluate = control.should_save = False


def ignore_stop_request(number: int, start: Callable[[int], None] | None = None) -> None:
    """Initialise a worker of a data loader: it ignores SIGTERM, so that the trainer can finish its step.

    A scheduler signals all processes of a job.

    Args:
        number: of the worker.
        start: another initialisation to call.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if start is not None:
        start(number)


class MetricsFile(TrainerCallback):
    """Appends every log to `metrics.jsonl` as a line; a resume first removes the lines after its step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not self.path.exists():
            return
        *lines, _ = self.path.read_text(errors="replace").split("\n")  # the last one is empty, or cut short by a kill
        kept = [line for number, line in enumerate(lines, start=1) if self.step_of(number, line) <= state.global_step]
        write_text(self.path, "".join(f"{line}\n" for line in kept if state.global_step > 0))

    def step_of(self, number: int, line: str) -> int:
        """The step of a line. Raises DataRefused for a damaged one."""
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            raise DataRefused(
                f"{self.path} is damaged at line {number}; put it back, or remove it and lose the figures so far"
            ) from None

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        record = {key.replace("eval_", "eval/", 1): value for key, value in logs.items() if key not in HIDDEN_LOGS}
        if set(record) - {"epoch"}:
            with self.path.open("a") as stream:
                stream.write(strict_json({"step": state.global_step, **record}) + "\n")


class ProgressBar(TrainerCallback):
    """Steps, time left and the last figures on stderr: a bar, or lines."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            rows = args.train_batch_size * args.world_size
            say(
                f"{self.label}: {state.max_steps:,} steps of {rows:,} rows on {args.device.type}, "
                f"into {Path(str(args.output_dir)).parent}"
            )
            self.bar = progress_bar(what=self.label, unit="step", total=state.max_steps, done=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        shown = {
            "loss": "loss",
            "eval_gap/centroid_distance": "gap",
            "eval_retrieval/mean/R@10": "R@10",
            "eval_caption/loss": "validation",
        }
        if self.bar is not None:
            self.last = {**getattr(self, "last", {}), **{shown[k]: f"{v:.3f}" for k, v in logs.items() if k in shown}}
            self.bar.set_postfix(self.last)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
