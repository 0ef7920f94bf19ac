"""`gapless train` as one call: trains a recipe by a method on a manifest, and writes a run directory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.training.from_manifest import completed_recipe
from gapless.training.recipes import Recipe, apply_method, get_recipe
from gapless.training.run import Run, train_run

EVALUATED = "eval/"  # before the keys of an evaluation in `metrics.jsonl`


@dataclass(frozen=True)
class TrainedRun(Result):
    """A finished training.

    Args:
        run: the directory: `config.yaml`, `metrics.jsonl`, `checkpoints/`, and the model in `model/`.
        passed_over: checkpoints that a resume could not use -> why.
        validation: the figures of the last evaluation on the validation rows, by key; empty where there was none.
    """

    run: Path
    passed_over: Mapping[str, str]
    validation: Mapping[str, float]


def train(
    recipe: str,
    *,
    data: str | Path | Manifest,
    out: str | Path,
    method: str = "gapless",
    seed: int = 0,
    settings: Recipe | None = None,
    resume: bool = False,
) -> TrainedRun:
    """Train one model on the `train` rows of a manifest and write its run directory.

    Examples:
        >>> import gapless
        >>> trained = gapless.train("phantom-small", data="data", out="run", method="clip")     # doctest: +SKIP
        >>> gapless.GaplessModel.from_pretrained(trained.run / "model")                         # doctest: +SKIP

    Args:
        recipe: a name of `gapless.training.RECIPES`; it is written into the run.
        data: the manifest, or its directory.
        out: run directory to write; with `resume` one that was begun with the same arguments.
        method: which loss: clip, gapless, or any other that `gapless train --help` names.
        seed: of the weights and of the order of the rows, at least 0.
        settings: a recipe to train as it is, in place of the named recipe with the method's loss.
        resume: continue from the newest checkpoint of `out` that verifies; without one, start again.

    Returns:
        The directory of the run, and the checkpoints that a resume could not use.

    Raises:
        UsageError: an unknown name, an output directory in use, settings that differ on resume.
        DataRefused: fewer rows than a batch. Interrupted: stopped by SIGTERM, and saved.
    """
    manifest = Manifest.of(data)
    chosen = settings if settings is not None else apply_method(get_recipe(recipe), method)
    chosen = completed_recipe(chosen, manifest)
    passed_over = train_run(Run(recipe, method, seed, chosen, manifest.fingerprint), manifest, Path(out), resume=resume)
    return TrainedRun(Path(out), passed_over, last_evaluation(Path(out)))


def last_evaluation(run: Path) -> dict[str, float]:
    """The figures of the last evaluation that a run's `metrics.jsonl` has, by key; empty where it has none."""
    try:
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    except FileNotFoundError:  # a training of no step
        return {}
    evaluations = [record for record in records if any(key.startswith(EVALUATED) for key in record)]
    last = evaluations[-1] if evaluations else {}
    return {key.removeprefix(EVALUATED): value for key, value in last.items() if key.startswith(EVALUATED)}
