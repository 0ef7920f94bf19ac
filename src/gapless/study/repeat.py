"""How a study is repeated: the commands that give the same runs, and the digests that say whether they did.

The commands are made of what the directories hold (`plan.json` of a comparison, `config.yaml` of a run). They name the
manifest by a placeholder: its path is a fact of one machine, its fingerprint is in the report.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gapless.core.errors import GaplessError
from gapless.core.files import plain, read_json, read_yaml, sha256_of
from gapless.core.plan import PLAN
from gapless.study.results import Run, Study
from gapless.training.recipes import Recipe, apply_method, get_recipe

DATA = "MANIFEST"
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Repeat:
    """What a reader needs to repeat a study.

    Args:
        commands: to be run in this order.
        digests: (run, file of weights, sha256).
        notes: what the commands leave open.
    """

    commands: list[str]
    digests: list[tuple[str, str, str]]
    notes: list[str]


def repeat_of(study: Study) -> Repeat:
    """The commands and the digests of a study; notes say what was not recorded."""
    notes: list[str] = []
    commands: list[str] = []
    described: list[tuple[str, Path]] = (
        [("", study.path)]
        if "runs" in study.comparison
        else [(f"{row}: ", run.path) for row, runs in study.runs.items() for run in runs]
    )
    for prefix, path in described:
        try:
            commands += _comparison_commands(study, path) if not prefix else _run_commands(path)
        except NotRepeatable as reason:
            notes.append(f"{prefix}{reason}")
    if commands:
        notes.append(
            f"{DATA} is the manifest whose fingerprint stands under what was run. The same bytes need the "
            "same versions and the same device."
        )
    return Repeat(commands, list(_digests(study)), notes)


class NotRepeatable(Exception):
    """Why no command gives a study again."""


def _comparison_commands(study: Study, path: Path) -> list[str]:
    """The `gapless compare` of a comparison directory."""
    if not (path / PLAN).is_file():
        raise NotRepeatable(f"the directory has no {PLAN}, so the settings of its runs are not known")
    plan, comparison = read_json(path / PLAN), study.comparison
    runs = [value for value in plan.values() if isinstance(value, Mapping) and "settings" in value]
    if not runs:
        raise NotRepeatable(f"{PLAN} describes no run")
    recipe, methods = runs[0]["recipe"], list(dict.fromkeys(run["method"] for run in runs))
    seeds = sorted({run["seed"] for run in runs})
    if seeds != list(range(len(seeds))):
        raise NotRepeatable(f"the seeds {', '.join(map(str, seeds))} were given in Python; settings are in {PLAN}")
    words = ["gapless", "compare", "--data", DATA, "--recipe", recipe, "--methods", ",".join(methods)]
    words += ["--baseline", str(comparison.get("baseline", methods[0])), "--seeds", str(len(seeds))]
    words += ["--split", str(plan.get("split", "test")), "--num_bootstrap", str(plan.get("num_bootstrap", 1000))]
    controls = comparison.get("closed_afterwards") or {}
    words += ["--closed_afterwards", ",".join(controls.values()) or "none"]
    for direction, query in (comparison.get("joint") or {}).items():
        words += ["--joint", _joint_text(direction, query["weights"])]
    words += [*_recipe_words(recipe, runs[0]["settings"]), *_loss_words(recipe, runs), "--out", path.resolve().name]
    return [shlex.join(words)]


def _run_commands(path: Path) -> list[str]:
    """The `gapless train` and `gapless evaluate` of a run directory."""
    if not (path / "config.yaml").is_file():
        raise NotRepeatable("measured without a training; the command that made its rows was not recorded")
    config, results = read_yaml(path / "config.yaml"), read_json(path / "results.json")
    if not {"recipe", "method", "seed", "settings"} <= config.keys():
        raise NotRepeatable("config.yaml does not describe the training of an aligner")
    name = path.resolve().name
    words = ["gapless", "train", config["recipe"], "--data", DATA, "--method", config["method"]]
    words += ["--seed", str(config["seed"]), *_recipe_words(config["recipe"], config["settings"])]
    words += [*_loss_words(config["recipe"], [config]), "--out", name]
    measured = ["gapless", "evaluate", name, "--data", DATA, "--split", str(results.get("split", "test"))]
    return [shlex.join(words), shlex.join(measured)]


def _joint_text(direction: str, weights: Mapping[str, float]) -> str:
    """A joint query as the command line takes it.

    >>> _joint_text("image+history_to_text", {"image": 2.0, "history": 1.0})
    'image=2+history->text'
    """
    parts = [name if weight == 1 else f"{name}={weight:g}" for name, weight in weights.items()]
    return f"{'+'.join(parts)}->{direction.removeprefix('+'.join(weights) + '_to_')}"


def _recipe(name: str) -> Recipe:
    try:
        return get_recipe(name)
    except GaplessError:
        raise NotRepeatable(f"the recipe {name!r} is none of gapless; the settings are beside the results") from None


def _recipe_words(name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """The options of the settings, but the loss's, that are not those of the recipe."""
    usual = _recipe(name)
    for field in fields(Recipe):
        if field.name != "loss" and settings.get(field.name) != plain(getattr(usual, field.name)):
            yield from (f"--{field.name}", _value_text(settings.get(field.name)))


def _loss_words(name: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options `--loss.*` of the settings that are not those of each run's method."""
    changed: dict[str, Any] = {}
    for run in runs:
        try:
            usual = plain(asdict(apply_method(_recipe(name), run["method"]).loss))
        except GaplessError:
            raise NotRepeatable(f"no method that is installed here is named {run['method']!r}") from None
        for key, value in run["settings"]["loss"].items():
            if value != usual.get(key) and changed.setdefault(key, value) != value:
                raise NotRepeatable(f"the methods have different settings of loss.{key}; they are beside the results")
    return [word for key, value in changed.items() for word in (f"--loss.{key}", _value_text(value))]


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _digests(study: Study) -> Iterator[tuple[str, str, str]]:
    """The weights of every run whose model lies beside its results."""
    runs: list[Run] = [run for of_method in study.runs.values() for run in of_method]
    for run in runs:
        for folder in (run.path / "model", run.path):
            files = sorted(folder.glob(WEIGHTS)) if (folder / "config.json").is_file() else []
            for file in files:
                yield run.path.resolve().name, file.name, sha256_of(file)
            if files:
                break
