"""Samples per second of a gapless training run against a bare PyTorch loop over the same model, batches and loss.

    python benchmarks/train.py [--steps 30] [--rounds 3]

Both are timed in turn in one process, round by round; the ratio of the medians is what counts.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from gapless.inference.embed import Collator, preprocessors_of
from gapless.inference.pairs import EpochSampler, PairDataset
from gapless.losses.base import after_step
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.recipes import Recipe, phantom_small
from gapless.training.run import all_captions, new_model, training_arguments
from gapless.training.trainer import AlignerTrainer

WARM_UP = 3


def dataset_of(model: GaplessModel, rows: Manifest) -> PairDataset:
    return PairDataset(rows, preprocessors_of(model), training_seed=0)


def bare_loop(recipe: Recipe, rows: Manifest, steps: int) -> float:
    """Samples per second of the loop anyone would write: same optimiser, clipping, temperature rule, data loader."""
    set_seed(0)
    model = new_model(recipe, all_captions(rows)).train()
    assert model.loss is not None
    batch_size: int = recipe.training["per_device_train_batch_size"]
    dataset = dataset_of(model, rows)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size,
        sampler=EpochSampler(len(dataset), 0),
        collate_fn=Collator(preprocessors_of(model)),
        drop_last=True,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    step, started = 0, 0.0
    while step < steps + WARM_UP:
        for inputs in loader:
            if step == WARM_UP:
                started = time.perf_counter()
            inputs.pop("ids")
            model(**inputs).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            after_step(model.loss)
            step += 1
            if step == steps + WARM_UP:
                break
    return steps * batch_size / (time.perf_counter() - started)


class Clock(TrainerCallback):
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step == WARM_UP:
            self.started = time.perf_counter()
        self.ended = time.perf_counter()


def gapless_run(recipe: Recipe, rows: Manifest, steps: int) -> float:
    """Samples per second of the Trainer, logging included, after the same warm-up."""
    clock = Clock()
    batch_size: int = recipe.training["per_device_train_batch_size"]
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(
            recipe,
            training={
                **recipe.training,
                "max_steps": steps + WARM_UP,
                "save_strategy": "no",
                "eval_strategy": "no",
                "lr_scheduler_type": "constant",
                "warmup_steps": 0,
            },
        )
        out = Path(folder)
        set_seed(0)
        model = new_model(settings, all_captions(rows))
        arguments = training_arguments(settings, out, 0, has_evaluation=False)
        trainer = AlignerTrainer(model, arguments, dataset_of(model, rows), run=out)
        trainer.add_callback(clock)
        trainer.train()
    return steps * batch_size / (clock.ended - clock.started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    recipe = phantom_small()
    with tempfile.TemporaryDirectory() as folder:
        rows = write_phantom(Path(folder) / "phantom", num_pairs=2000).select("train")
        rates: dict[str, list[float]] = {"bare": [], "gapless": []}
        for _ in range(options.rounds):
            rates["bare"].append(bare_loop(recipe, rows, options.steps))
            rates["gapless"].append(gapless_run(recipe, rows, options.steps))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(json.dumps({"samples_per_second": medians, "ratio": medians["gapless"] / medians["bare"], "rounds": rates}))


if __name__ == "__main__":
    main()
