"""What each process of the test of the first process's failures runs: it notes what every case raised or gave."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

from accelerate import PartialState

from gapless.core.errors import DataRefused, Interrupted, NeedsNetwork, UsageError
from gapless.training import from_manifest, run
from gapless.training.first_rank import by_first
from gapless.training.recipes import Recipe

FAILURES = {
    "OSError": OSError(28, "No space left on device"),
    "MemoryError": MemoryError(),
    "ValueError": ValueError("quantiles"),
    "DataRefused": DataRefused("row 3: labs: not a number"),
    "UsageError": UsageError("no such column"),
    "NeedsNetwork": NeedsNetwork("a model is on the hub"),
    "Interrupted": Interrupted("stopped"),
}
RECIPE = Recipe(modalities={"labs": {"input": {"kind": "table", "columns": ["age"]}}})


def outcome_of(call):
    """What a call raised, class and message; or what it gave."""
    try:
        return ["gave", call()]
    except Exception as error:
        return [type(error).__name__, str(error)]


def raising(error):
    def work():
        raise error

    return work


def cases(arguments, folder):
    """Every case in its order, which is the same in all processes."""
    yield "a result", lambda: by_first(arguments, lambda: {"age": [1.5, 2.0]})
    for name, error in FAILURES.items():
        yield name, lambda error=error: by_first(arguments, raising(error))
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
    arguments = SimpleNamespace(process_index=rank, world_size=num_ranks)
    outcomes = {name: outcome_of(call) for name, call in cases(arguments, Path(folder))}
    Path(out).write_text(json.dumps(outcomes))
    PartialState().destroy_process_group()
