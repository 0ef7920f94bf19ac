"""`gapless compare` as one call: trains methods x seeds at equal budget, and writes tables and differences.

Finished runs in the output directory are kept, so that an interrupted comparison continues where it stopped.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from gapless.core.errors import UsageError
from gapless.core.files import read_json, write_json, write_text
from gapless.core.plan import claimed_for
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.metrics.measure import measure_difference
from gapless.metrics.uncertainty import Interval
from gapless.study.renderings import to_latex, to_markdown
from gapless.study.table import paper_table
from gapless.training.evaluate import (
    EMBEDDINGS,
    comparable_rows,
    embed_split,
    evaluate,
    measured_on,
    present_in,
    write_latent,
)
from gapless.training.from_manifest import completed_recipe
from gapless.training.recipes import Recipe, apply_method, get_recipe
from gapless.training.run import Run, initial_model, train_run

COMPARISON = "compare.json"


@dataclass(frozen=True)
class Comparison(Result):
    """The content of `compare.json`.

    Args:
        n, gallery_size, split, recipe, versions, data, budget: those of `gapless.evaluate`, the same for all runs.
        methods: their names; `baseline` is the one that differences are taken from.
        seeds: of the runs of each method.
        table: method -> figure -> `{"mean", "sd"}` over seeds; the deviation of one seed is None.
        random: figure of grouping -> its value for random embeddings.
        runs: method -> directories of its runs, relative to `out`.
        differences: method -> figure -> method minus baseline, `{"value", "low", "high"}`, paired over groups.
    """

    n: int
    gallery_size: int
    split: str
    recipe: str
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    budget: Mapping[str, Any]
    methods: Sequence[str]
    baseline: str
    seeds: Sequence[int]
    table: Mapping[str, Any]
    random: Mapping[str, float]
    runs: Mapping[str, Sequence[str]]
    differences: Mapping[str, Any]


def compare(
    recipe: str = "phantom-small",
    *,
    data: str | Path | Manifest,
    out: str | Path,
    methods: Sequence[str] = ("clip", "clip-fixed", "gapless"),
    seeds: Iterable[int] = range(3),
    baseline: str = "clip",
    split: str = "test",
    num_bootstrap: int = 1000,
    settings: Recipe | None = None,
    loss: Mapping[str, Any] | None = None,
) -> Comparison:
    """Train and measure every method with every seed at equal budget, and write the comparison directory.

    Example:
        >>> import gapless
        >>> comparison = gapless.compare(data="data", out="compare", seeds=[0, 1])                   # doctest: +SKIP
        >>> comparison.table["gapless"]["gap/centroid_distance"]["mean"]                             # doctest: +SKIP

    Args:
        recipe: a name of `gapless.training.RECIPES`; it is written into the comparison.
        data: the manifest, or its directory.
        out: directory to write; finished runs in it are kept, so that an interrupted comparison continues.
        methods: which losses: clip, gapless, or any other that `gapless compare --help` names.
        seeds: of the runs of each method.
        baseline: the method that differences are taken from; the first one where it is not compared.
        split: which rows are the gallery.
        num_bootstrap: resamples of groups for the 95 % intervals; 0 gives plain numbers and no differences.
        settings: a recipe to train in place of the named one; each method replaces its loss.
        loss: settings of losses by name, for every method that has such a setting and does not fix it.

    Raises:
        UsageError: an unknown method, no seed, or an output directory that holds another comparison.
        DataRefused: a split of one row.
    """
    manifest, out = Manifest.of(data), Path(out)
    chosen = completed_recipe(settings if settings is not None else get_recipe(recipe), manifest)
    recipes = {method: apply_method(chosen, method, loss) for method in methods}
    comparable_rows(manifest, split)
    seeds = list(seeds)
    if not seeds or num_bootstrap < 0:
        raise UsageError(
            f"at least one seed and no negative bootstrap are needed, got {len(seeds)} and {num_bootstrap}"
        )
    plans = {
        f"{method}-seed{seed}": Run(recipe, method, seed, recipes[method], manifest.fingerprint)
        for method in methods
        for seed in seeds
    }
    plan = {name: run.to_dict() for name, run in plans.items()} | {"split": split, "num_bootstrap": num_bootstrap}
    with claimed_for(plan, out):
        _run_all(plans, manifest, out, split, num_bootstrap)
        runs = {method: [out / "runs" / f"{method}-seed{seed}" for seed in seeds] for method in methods}
        baseline = baseline if baseline in methods else methods[0]
        differing = _differences_to(baseline, runs, manifest.select(split), num_bootstrap)
        comparison = Comparison(**_summarise(runs, baseline, out), differences=differing)
        write_json(out / COMPARISON, comparison.as_json())
        table = paper_table(comparison.as_json())
        write_text(out / "table.md", to_markdown(table))
        write_text(out / "table.tex", to_latex(table))
    return comparison


def _run_all(plans: dict[str, Run], manifest: Manifest, out: Path, split: str, num_bootstrap: int) -> None:
    """Train and measure every run of the plan that has no figures yet."""
    for number, (name, run) in enumerate(plans.items(), start=1):
        directory = out / "runs" / name
        if not (directory / "results.json").exists():
            label = f"{run.method} seed {run.seed} ({number}/{len(plans)})"
            _run_one(run, manifest, directory, label, split, num_bootstrap)


def _run_one(run: Run, manifest: Manifest, directory: Path, label: str, split: str, num_bootstrap: int) -> None:
    """Train or continue one run, measure it, and write its latent space before and after the training."""
    started = time.perf_counter()
    train_run(run, manifest, directory, resume=(directory / "config.yaml").exists(), label=label)
    seconds = time.perf_counter() - started
    rows = manifest.select(split)
    untrained = embed_split(initial_model(run, manifest), rows)
    write_latent(directory / "latent_untrained.safetensors", untrained, rows)
    evaluate(directory, data=manifest, split=split, num_bootstrap=num_bootstrap, train_seconds=seconds)


def _summarise(runs: dict[str, list[Path]], baseline: str, out: Path) -> dict[str, Any]:
    """The content of compare.json except the differences."""
    results = {method: [read_json(path / "results.json") for path in paths] for method, paths in runs.items()}
    first = results[baseline][0]
    figures = {method: [_flat_figures(one["figures"]) for one in over_runs] for method, over_runs in results.items()}
    shared = {key: first[key] for key in ("n", "gallery_size", "split", "recipe", "versions", "data", "budget")}
    return {
        **shared,
        "methods": list(runs),
        "baseline": baseline,
        "seeds": [one["seed"] for one in results[baseline]],
        "table": {method: _over_seeds(over_runs) for method, over_runs in figures.items()},
        "random": {
            key.replace("grouping/random/", "grouping/"): value
            for key, value in figures[baseline][0].items()
            if key.startswith("grouping/random/")
        },
        "runs": {method: [str(path.relative_to(out)) for path in paths] for method, paths in runs.items()},
    }


def _flat_figures(figures: dict[str, Any]) -> dict[str, float]:
    """Each figure as one number: the value of one with an interval, the mean of one over k-means seeds."""

    def number(figure: Any) -> float:
        value = figure["value" if "value" in figure else "mean"] if isinstance(figure, dict) else figure
        return math.nan if value is None else float(value)

    return {key: number(figure) for key, figure in figures.items()}


def _over_seeds(figures: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation over seeds; one seed has no deviation."""
    return {
        key: {
            "mean": float(np.mean([one[key] for one in figures])),
            "sd": float(np.std([one[key] for one in figures], ddof=1)) if len(figures) > 1 else None,
        }
        for key in figures[0]
    }


def _differences_to(
    baseline: str, runs: dict[str, list[Path]], rows: Manifest, num_bootstrap: int
) -> dict[str, dict[str, Interval]]:
    """Each other method minus the baseline, means over seeds, with paired 95 % intervals of a bootstrap over groups."""
    if num_bootstrap == 0:
        return {}
    embeddings = {method: [load_file(path / EMBEDDINGS) for path in paths] for method, paths in runs.items()}
    measured_columns = {key: value for key, value in measured_on(rows).items() if key != "labels"}
    measured_columns["present"] = present_in(embeddings[baseline][0])
    return {
        method: measure_difference(
            embeddings[method], embeddings[baseline], **measured_columns, num_bootstrap=num_bootstrap
        )
        for method in runs
        if method != baseline
    }
