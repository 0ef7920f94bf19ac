"""What each process of the test of the first process's failures runs: it notes what every case raised or gave."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

from accelerate import PartialState
from transformers import Trainer, TrainerState

from gapless.core.errors import DataRefused, Interrupted, NeedsNetwork, UsageError
from gapless.training import from_manifest, run
from gapless.training.first_rank import by_first, in_every
from gapless.training.recipes import Recipe
from gapless.training.trainer import RunTrainer

FAILURES = {
    "OSError": OSError(28, "No space left on device"),
    "MemoryError": MemoryError(),
    "ValueError": ValueError("quantiles"),
    "DataRefused": DataRefused("row 3: labs: not a number"),
    "UsageError": UsageError("no such column"),
    "NeedsNetwork": NeedsNetwork("a model is on the hub"),
    "Interrupted": Interrupted("stopped"),
}
SAVES = [(0, "model"), (0, "state"), (1, "state"), (0, "finish"), (0, "rotate"), (0, "none")]
RECIPE = Recipe(modalities={"labs": {"input": {"kind": "table", "columns": ["age"]}}})


def outcome_of(call):
    """What a call raised, class and message; or what it gave."""
    try:
        return ["gave", call()]
    except Exception as error:
        return [type(error).__name__, str(error)]


def raising_in(rank, arguments, error):
    """Work that fails in one process alone."""
    return raising(error) if arguments.process_index == rank else lambda: None


def saved(arguments, folder, rank, step):
    """Save a checkpoint while the disk of one process is full at one step of it."""
    trainer = object.__new__(SavingTrainer)
    trainer.args, trainer.folder, trainer.fails = arguments, folder, (rank, step)
    trainer.state = TrainerState(global_step=2)
    trainer.num_kept = None
    trainer._save_checkpoint(None, None)


class SavingTrainer(RunTrainer):
    """A trainer whose single steps of a save do nothing, or fail."""

    def is_world_process_zero(self):
        return self.args.process_index == 0

    def step(self, name):
        if (self.args.process_index, name) == self.fails:
            raise FAILURES["OSError"]

    def finish_checkpoint(self, written, final):
        self.step("finish")

    def rotate(self, directory):
        self.step("rotate")


def partial_files(folder):
    return [path.name for path in folder.rglob("*partial*")]


def save_model(self, output_dir=None, _internal_call=False):
    self.step("model")


def save_checkpoint(self, model, trial):
    """What transformers does: the first process saves the model, all wait for it, each saves its own state."""
    (Path(self._get_output_dir(trial)) / "checkpoint-2").mkdir(parents=True, exist_ok=True)
    self.save_model("", _internal_call=True)
    PartialState().wait_for_everyone()
    self.step("state")


def raising(error):
    def work():
        raise error

    return work


def cases(arguments, folder):
    """Every case in its order, which is the same in all processes."""
    yield "a result", lambda: by_first(arguments, lambda: {"age": [1.5, 2.0]})
    for name, error in FAILURES.items():
        yield name, lambda error=error: by_first(arguments, raising(error))
    for name, rank in (("first of all", 0), ("second of all", 1)):
        yield name, lambda rank=rank: in_every(arguments, raising_in(rank, arguments, FAILURES["OSError"]))
    yield "refused by the second", lambda: in_every(arguments, raising_in(1, arguments, FAILURES["DataRefused"]))
    yield "none of all", lambda: in_every(arguments, lambda: None)
    Trainer.save_model, Trainer._save_checkpoint = save_model, save_checkpoint
    for rank, step in SAVES:
        yield f"save {rank} {step}", lambda rank=rank, step=step: saved(arguments, folder, rank, step)
        yield f"partial {rank} {step}", lambda: by_first(arguments, lambda: partial_files(folder))
    from_manifest._fitted_modalities = lambda modalities, rows: raising(FAILURES["OSError"])()
    yield "fitted", lambda: from_manifest.fitted_recipe(RECIPE, None, arguments)
    request = SimpleNamespace(to_yaml=lambda: "recipe: x\n")
    yield "written", lambda: run.write_request(request, arguments, folder / "new")
    yield "not written", lambda: run.write_request(request, arguments, folder / "file")
    yield "claimed", lambda: entered(folder / "free", arguments)
    yield "in use", lambda: entered(folder / "used", arguments)


def entered(out, arguments):
    with run.claimed(out, arguments, resume=False):
        return "inside"


def work(rank, num_ranks, port, folder, out):
    """Run all cases and write their outcomes to `out`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    PartialState._reset_state()  # that of the process which was forked
    PartialState(cpu=True, backend="gloo")
    arguments = SimpleNamespace(process_index=rank, world_size=num_ranks, output_dir=str(Path(folder) / "checkpoints"))
    outcomes = {name: outcome_of(call) for name, call in cases(arguments, Path(folder))}
    Path(out).write_text(json.dumps(outcomes))
    PartialState().destroy_process_group()
