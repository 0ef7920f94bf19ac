"""Reads comparison, run and measure directories into one form for the table and the report, without computing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_json

LATENT = "latent.safetensors"
LATENT_UNTRAINED = "latent_untrained.safetensors"
RESULT_FILES = ("results.json", "measure.json")
NUMBERS = ("value", "mean", "low", "high", "sd")
SHARED_BY_RUNS = (
    "n",
    "gallery_size",
    "present",
    "pairs",
    "complete",
    "joint",
    "split",
    "recipe",
    "versions",
    "data",
    "command",
    "budget",
    "seconds",
)


@dataclass(frozen=True)
class Latent:
    """The embeddings of some test pairs, rows aligned over the modalities."""

    embeddings: dict[str, np.ndarray]
    ids: list[str]


@dataclass(frozen=True)
class Run:
    """One trained or measured model.

    Args:
        path: its directory.
        results: the content of `results.json` or `measure.json`.
        history: the lines of `metrics.jsonl`, none for a measured model.
    """

    path: Path
    results: dict[str, Any]
    history: list[dict[str, Any]]

    @property
    def figures(self) -> dict[str, Any]:
        """Key -> figure."""
        return dict(self.results.get("figures", {}))

    def latent(self) -> Latent | None:
        """The latent space after the training, where it is stored."""
        return read_latent(self.path / LATENT)

    def latent_untrained(self) -> Latent | None:
        """The latent space before the training, where it is stored."""
        return read_latent(self.path / LATENT_UNTRAINED)


@dataclass(frozen=True)
class Study:
    """Methods that are shown in one table: `comparison` in the form of compare.json, `runs` those of each method."""

    path: Path
    title: str
    comparison: dict[str, Any]
    runs: dict[str, list[Run]]

    @property
    def methods(self) -> list[str]:
        """The names of the methods, in the order of the table."""
        return list(self.comparison["methods"])

    @property
    def heading(self) -> str:
        """The methods and the data as a heading; the directory's name where the source was not recorded."""
        source = (self.comparison.get("data") or {}).get("source")
        if isinstance(source, Mapping):
            source = " and ".join(f"{value}" for value in source.values())
        more = len(self.methods) - 4
        names = ", ".join(self.methods[:4]) + (f" and {more} more" if more > 0 else "")
        return f"{names} on {source}" if source else self.title

    def all_figures(self, method: str) -> dict[str, Any]:
        """Every figure of a method as stored: over seeds, or of its single run."""
        is_comparison = "runs" in self.comparison
        return dict(self.comparison["table"].get(method, {})) if is_comparison else self.runs[method][0].figures


def read_studies(paths: Sequence[Path]) -> list[Study]:
    """A study for each comparison directory, and one study of all other runs and measurements, with a row each.

    Raises:
        UsageError: no directory, or one without results. DataRefused: damaged results.
    """
    if not paths:
        raise UsageError("no directory given; name comparison, run or measure directories")
    studies = [_read_comparison(path) for path in paths if (path / "compare.json").is_file()]
    singles = [path for path in paths if not (path / "compare.json").is_file()]
    return studies + ([_study_of_runs([_read_run(path) for path in singles])] if singles else [])


def _read_comparison(path: Path) -> Study:
    """A directory that `gapless compare` wrote."""
    comparison = read_json(path / "compare.json")
    kinds = {"methods": list, "table": dict}
    missing = [key for key, kind in kinds.items() if not isinstance(comparison, dict) or not comparison.get(key)]
    if missing:
        raise DataRefused(f"{path / 'compare.json'} has no {' and no '.join(missing)}; write it with gapless compare")
    wrong = [key for key, kind in kinds.items() if not isinstance(comparison[key], kind)]
    if wrong:
        raise DataRefused(f"{path / 'compare.json'}: {wrong[0]} is a {type(comparison[wrong[0]]).__name__}")
    for figures in comparison["table"].values():
        _check_figures(path / "compare.json", figures)
    runs = {
        method: [_read_run(path / run) for run in comparison.get("runs", {}).get(method, []) if (path / run).is_dir()]
        for method in comparison["methods"]
    }
    return Study(path, path.resolve().name, comparison, runs)


def _read_run(path: Path) -> Run:
    """A run directory, a measure directory, or one JSON file of results."""
    if path.is_file():
        return Run(path.parent, _results_of(path), [])
    for name in RESULT_FILES:
        if (path / name).is_file():
            return Run(path, _results_of(path / name), read_history(path / "metrics.jsonl"))
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if (path / "config.yaml").exists():
        raise UsageError(f"{path} is a run without results.json; measure it with gapless evaluate when it has finished")
    raise UsageError(f"{path} holds none of compare.json, {', '.join(RESULT_FILES)}; name a directory with results")


def _results_of(path: Path) -> dict[str, Any]:
    results = read_json(path)
    if not isinstance(results, dict):
        raise DataRefused(f"{path} holds a {type(results).__name__}, not an object with figures")
    figures = results.get("figures", results)
    _check_figures(path, figures)
    return results if "figures" in results else {"figures": figures}


def _check_figures(path: Path, figures: Any) -> None:
    """Raise DataRefused for a file without figures, or with figures that are no numbers."""
    named = {key: value for key, value in figures.items() if "/" in key} if isinstance(figures, Mapping) else {}
    if not named:
        raise DataRefused(f"{path} holds no figures; name what gapless measure or evaluate wrote")
    for key, value in named.items():
        numbers = [value.get(part) for part in NUMBERS] if isinstance(value, Mapping) else [value]
        if not all(number is None or isinstance(number, int | float) for number in numbers):
            raise DataRefused(f"{path}: {key} is no number, but {str(value)[:60]!r}")


def _study_of_runs(runs: Sequence[Run]) -> Study:
    """A study with a row for each run; where the runs' splits or data differ, a note says so."""
    rows = dict(zip(_row_names(runs), runs, strict=True))
    shared = {
        key: runs[0].results[key]
        for key in SHARED_BY_RUNS
        if key in runs[0].results and all(run.results.get(key) == runs[0].results[key] for run in runs)
    }
    modalities = [run.results.get("modalities") for run in runs]
    if modalities[0] and all(names == modalities[0] for names in modalities):
        shared["modalities"] = modalities[0]
    differ = [key for key in SHARED_BY_RUNS if key not in shared and any(key in run.results for run in runs)]
    comparison = {
        **shared,
        "methods": list(rows),
        "random": {
            key.replace("grouping/random/", "grouping/"): figure
            for key, figure in (runs[0].figures if not differ else {}).items()
            if key.startswith("grouping/random/")
        },
        "seeds": sorted({run.results["seed"] for run in runs if run.results.get("seed") is not None}),
        "differ": differ,
        "table": {name: {key: _as_mean(figure) for key, figure in run.figures.items()} for name, run in rows.items()},
    }
    title = runs[0].path.resolve().name if len(runs) == 1 else f"{len(runs)} runs"
    return Study(runs[0].path, title, comparison, {name: [run] for name, run in rows.items()})


def _row_names(runs: Sequence[Run]) -> list[str]:
    """Names of the runs: method and seed, with the directory where these are not distinct."""

    def short(run: Run) -> str:
        method = str(run.results.get("method", run.path.resolve().name))
        seed = run.results.get("seed")
        return method if seed is None or len(runs) == 1 else f"{method}, seed {seed}"

    names = [short(run) for run in runs]
    if len(set(names)) == len(names):
        return names
    return [f"{name} ({run.path})" for name, run in zip(names, runs, strict=True)]


def _as_mean(figure: Any) -> dict[str, Any]:
    """A figure of one run in the layout of a figure over seeds; a spread over k-means seeds is not one over runs."""
    if isinstance(figure, Mapping):
        return {**figure, "mean": figure.get("value", figure.get("mean")), "sd": None}
    return {"mean": figure, "sd": None}


def read_history(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    records = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise DataRefused(f"{path} line {number} is not valid JSON; remove the line") from None
        if isinstance(record, dict):
            records.append(record)
    return records


def read_latent(path: Path) -> Latent | None:
    """The embeddings of a file; None without the file. Raises DataRefused for a damaged one."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            embeddings = {name: np.asarray(file.get_tensor(name), dtype=np.float32) for name in names}
            ids = json.loads((file.metadata() or {}).get("ids", "[]"))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataRefused(f"{path} is not a readable safetensors file ({error})") from None
    if len({matrix.shape for matrix in embeddings.values()}) != 1:
        shapes = {name: matrix.shape for name, matrix in embeddings.items()}
        raise DataRefused(f"{path} has modalities of different shapes: {shapes}")
    return Latent(embeddings, [str(row) for row in ids])
