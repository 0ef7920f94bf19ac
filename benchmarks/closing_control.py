"""Time and memory of a training whose closing follows held-out pairs, against one that follows the clock.

    python benchmarks/closing_control.py [--pairs 4000 --epochs 4 --rounds 2]

Each training is a process of its own, and the two methods run in turn. The processor's seconds of the steps count, from
the first step to the last with the measurements between them; validation and saving are off. Memory is the peak of the
process. 5 % more time and 2 % more memory are what the method may cost.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from resident_memory import peak_bytes

METHODS = ("gapless-published", "gapless-held-out")


def measured_run(method: str, data: str, epochs: int) -> dict[str, float]:
    """Processor seconds of the steps and peak memory of this process, for one training."""
    from transformers import TrainerCallback

    import gapless
    from gapless.training.recipes import apply_method, phantom_small
    from gapless.training.trainer import AlignerTrainer

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:  # the first step warms up
                self.started = time.process_time()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.ended = time.process_time()

    clock = Clock()
    train = AlignerTrainer.train

    def timed(trainer: AlignerTrainer, *words: Any, **options: Any) -> Any:
        trainer.add_callback(clock)
        return train(trainer, *words, **options)

    AlignerTrainer.train = timed  # type: ignore[method-assign, assignment]
    recipe = apply_method(phantom_small(), method)
    quiet = {"num_train_epochs": epochs, "eval_strategy": "no", "save_strategy": "no"}
    recipe = replace(recipe, training={**recipe.training, **quiet})
    with tempfile.TemporaryDirectory() as folder:
        gapless.train("phantom-small", data=data, out=Path(folder) / "run", method=method, settings=recipe)
    seconds = clock.ended - clock.started
    return {"cpu_s": seconds, "peak_mib": peak_bytes() / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=2, metavar=("METHOD", "DATA"), help="one training, in this process")
    options = parser.parse_args()
    if options.child:
        method, manifest = options.child
        print(json.dumps(measured_run(method, manifest, options.epochs)))
        return
    from gapless.manifest.readers.phantom import write_phantom

    runs: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        num_held = max(64, options.pairs // 10)
        data = write_phantom(Path(folder) / "data", num_pairs=options.pairs, num_validation=num_held, num_test=64)
        for _ in range(options.rounds):
            for method in METHODS:
                command = [sys.executable, __file__, "--epochs", str(options.epochs), "--child", method, str(data.path)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                runs[method].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {method: {key: median(run[key] for run in found) for key in found[0]} for method, found in runs.items()}
    clock, held_out = (medians[method] for method in METHODS)
    ratios = {key: held_out[key] / clock[key] for key in clock}
    print(json.dumps({"medians": medians, "ratios": ratios, "rounds": runs}))


if __name__ == "__main__":
    main()
