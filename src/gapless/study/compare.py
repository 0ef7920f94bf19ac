"""Methods x seeds at equal budget: the runs, the table over seeds, the differences to a baseline.

Finished runs in the output directory are kept, so that an interrupted comparison continues where it stopped.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from transformers import set_seed

from gapless.core.errors import UsageError
from gapless.core.files import read_json, write_json, write_text
from gapless.core.plan import claimed_for
from gapless.manifest.manifest import Manifest
from gapless.metrics.measure import measure_difference
from gapless.metrics.uncertainty import Interval
from gapless.study.renderings import to_latex, to_markdown
from gapless.study.table import paper_table
from gapless.training.evaluate import EMBEDDINGS, comparable_rows, embed_split, evaluate_run, measured_on, write_latent
from gapless.training.recipes import Recipe, apply_method
from gapless.training.run import Run, all_captions, new_model, train

COMPARISON = "compare.json"


def compare(
    recipe_name: str,
    recipe: Recipe,
    manifest: Manifest,
    methods: Sequence[str],
    seeds: Iterable[int],
    out: Path,
    baseline: str = "clip",
    split: str = "test",
    num_bootstrap: int = 1000,
    loss: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and measure every method with every seed, and write the comparison directory.

    Args:
        loss: settings of losses by name, for every method that has such a setting and does not fix it.

    Returns:
        what `compare.json` holds.

    Raises:
        UsageError: an unknown method, or an output directory that holds another comparison.
        DataRefused: a split of one row.
    """
    recipes = {method: apply_method(recipe, method, loss) for method in methods}
    comparable_rows(manifest, split)
    seeds = list(seeds)
    if not seeds or num_bootstrap < 0:
        raise UsageError(
            f"at least one seed and no negative bootstrap are needed, got {len(seeds)} and {num_bootstrap}"
        )
    plans = {
        f"{method}-seed{seed}": Run(recipe_name, method, seed, recipes[method], manifest.fingerprint)
        for method in methods
        for seed in seeds
    }
    plan = {name: run.to_dict() for name, run in plans.items()} | {"split": split, "num_bootstrap": num_bootstrap}
    with claimed_for(plan, out):
        run_all(plans, manifest, out, split, num_bootstrap)
        runs = {method: [out / "runs" / f"{method}-seed{seed}" for seed in seeds] for method in methods}
        baseline = baseline if baseline in methods else methods[0]
        comparison = summarise(runs, baseline, out) | {
            "differences": differences_to(baseline, runs, manifest.select(split), num_bootstrap)
        }
        write_json(out / COMPARISON, comparison)
        table = paper_table(comparison)
        write_text(out / "table.md", to_markdown(table))
        write_text(out / "table.tex", to_latex(table))
    return comparison


def run_all(plans: dict[str, Run], manifest: Manifest, out: Path, split: str, num_bootstrap: int) -> None:
    """Every run of the plan that has no figures yet."""
    for number, (name, run) in enumerate(plans.items(), start=1):
        directory = out / "runs" / name
        if not (directory / "results.json").exists():
            label = f"{run.method} seed {run.seed} ({number}/{len(plans)})"
            run_one(run, manifest, directory, label, split, num_bootstrap)


def run_one(run: Run, manifest: Manifest, directory: Path, label: str, split: str, num_bootstrap: int) -> None:
    """Train (or finish) one run, measure it, and keep its latent space before and after."""
    started = time.perf_counter()
    train(run, manifest, directory, resume=(directory / "config.yaml").exists(), label=label)
    seconds = time.perf_counter() - started
    rows = manifest.select(split)
    set_seed(run.seed)
    untrained = embed_split(new_model(run.settings, all_captions(manifest.select("train")), run.method), rows)
    write_latent(directory / "latent_untrained.safetensors", untrained, rows)
    evaluate_run(directory, manifest, split, num_bootstrap, extra={"train_seconds": seconds})


def summarise(runs: dict[str, list[Path]], baseline: str, out: Path) -> dict[str, Any]:
    """What compare.json holds: the table over seeds, the differences to the baseline, what it was measured on."""
    results = {method: [read_json(path / "results.json") for path in paths] for method, paths in runs.items()}
    first = results[baseline][0]
    figures = {method: [flat_figures(one["figures"]) for one in found] for method, found in results.items()}
    shared = {key: first[key] for key in ("n", "gallery_size", "split", "recipe", "versions", "data", "budget")}
    return {
        **shared,
        "methods": list(runs),
        "baseline": baseline,
        "seeds": [one["seed"] for one in results[baseline]],
        "table": {method: over_seeds(found) for method, found in figures.items()},
        "random": {
            key.replace("grouping/random/", "grouping/"): value
            for key, value in figures[baseline][0].items()
            if key.startswith("grouping/random/")
        },
        "runs": {method: [str(path.relative_to(out)) for path in paths] for method, paths in runs.items()},
    }


def flat_figures(figures: dict[str, Any]) -> dict[str, float]:
    """Each figure as one number: the value of one with an interval, the mean of one over k-means seeds."""

    def number(figure: Any) -> float:
        value = figure["value" if "value" in figure else "mean"] if isinstance(figure, dict) else figure
        return math.nan if value is None else float(value)

    return {key: number(figure) for key, figure in figures.items()}


def over_seeds(figures: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Mean and sample standard deviation over seeds; one seed has no deviation."""
    return {
        key: {
            "mean": float(np.mean([one[key] for one in figures])),
            "sd": float(np.std([one[key] for one in figures], ddof=1)) if len(figures) > 1 else None,
        }
        for key in figures[0]
    }


def differences_to(
    baseline: str, runs: dict[str, list[Path]], rows: Manifest, num_bootstrap: int
) -> dict[str, dict[str, Interval]]:
    """Each other method minus the baseline, means over seeds, with paired 95 % intervals of a bootstrap over groups."""
    if num_bootstrap == 0:
        return {}
    embeddings = {method: [load_file(path / EMBEDDINGS) for path in paths] for method, paths in runs.items()}
    known = {key: value for key, value in measured_on(rows).items() if key != "labels"}
    return {
        method: measure_difference(embeddings[method], embeddings[baseline], **known, num_bootstrap=num_bootstrap)
        for method in runs
        if method != baseline
    }
