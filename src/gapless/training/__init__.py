"""Training an aligner: recipes, the run directory, checkpoints, and the evaluation of a finished run."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "RECIPES",
    "Evaluation",
    "Recipe",
    "Run",
    "TrainedRun",
    "train_run",
]

if TYPE_CHECKING:
    from gapless.training.evaluate import Evaluation
    from gapless.training.recipes import RECIPES, Recipe
    from gapless.training.run import Run, train_run
    from gapless.training.train import TrainedRun

__getattr__ = lazy_names(
    __name__,
    {
        "Evaluation": "gapless.training.evaluate",
        "RECIPES": "gapless.training.recipes",
        "Recipe": "gapless.training.recipes",
        "Run": "gapless.training.run",
        "TrainedRun": "gapless.training.train",
        "train_run": "gapless.training.run",
    },
)
