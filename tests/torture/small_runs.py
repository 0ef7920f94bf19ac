"""Runs of a second or so that hold what makes a resume hard: dropout, augmentation, accumulation, a schedule, uneven
epochs, and logs and checkpoints that fall together with nothing else.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes import tiny_modalities
from transformers.utils import logging

from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.training.recipes import Recipe, apply_method
from gapless.training.run import Run, train_run

logging.disable_progress_bar()

BATCHES_IN_EPOCH = 7  # of 8 rows, two rows left out; two batches make a step, and the last one a step alone
STEPS_IN_EPOCH = 4
EPOCHS = 4


def small_phantom(directory: Path) -> Manifest:
    return write_phantom(directory / "phantom", num_pairs=58 + 12 + 6, num_validation=12, num_test=6, image_size=16)


def small_run(data: Manifest, method: str = "gapless", seed: int = 0, **training: Any) -> Run:
    recipe = Recipe(
        modalities=tiny_modalities(),
        embedding_dim=24,
        vocab_size=400,
        augment_images=True,
        training={
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "weight_decay": 0.1,
            "warmup_steps": 3,
            "lr_scheduler_type": "cosine",
            "eval_strategy": "epoch",
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": 2,
            "logging_steps": 3,
            "use_cpu": True,
            **training,
        },
    )
    recipe = replace(recipe, loss=replace(recipe.loss, mask_duplicates=True))
    return Run("small", method, seed, apply_method(recipe, method), data.fingerprint)


def trainer_of(data: Manifest, out: Path) -> Callable[..., dict[str, str]]:
    """`train` of the small run into `out`, with what is left to say by keyword."""

    def run(resume: bool = False, **training: Any) -> dict[str, str]:
        return train_run(small_run(data, **training), data, out, resume=resume)

    return run
