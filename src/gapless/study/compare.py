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
from torch import Tensor

from gapless.auditing.modality_audit import manifest_presence
from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import read_json, write_json, write_text
from gapless.core.plan import claimed_for
from gapless.core.results import Result
from gapless.inference.embed import check_names
from gapless.inference.presence import MIN_MODALITIES, common_rows, present_in
from gapless.manifest.manifest import Manifest
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.joint import joint_queries
from gapless.metrics.measure import measure, measure_difference
from gapless.metrics.uncertainty import Interval
from gapless.study.closed_afterwards import CONTROLS, check_controls, closed_runs, method_of_control
from gapless.study.pair_tables import pair_tables
from gapless.study.renderings import to_latex, to_markdown
from gapless.study.table import paper_table
from gapless.training.evaluate import (
    ABSENT,
    EMBEDDINGS,
    comparable_rows,
    embed_split,
    evaluate,
    measured_on,
    write_latent,
)
from gapless.training.from_manifest import completed_recipe
from gapless.training.presence import trainable_rows
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
        anchor: the modality that the methods draw the others to, where there are more than two.
        modalities: their names in the order that keys of pairs have them; None for image and text.
        present, pairs, complete: as `gapless.measure` gives them, where rows lack modalities.
        joint: direction of a joint query -> n, gallery_size, weights, the rows that have each part.
        closed_afterwards: row -> the closing method, for the rows that are `clip` closed afterwards; they are among
            `methods` too.
        presence: how many rows of the manifest have each modality and each pattern of them, in all and by split, and
            `notes`: what presence alone tells; where there are more than two modalities, or rows lack one.
    """

    n: int
    gallery_size: int | None
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
    anchor: str | None = None
    modalities: Sequence[str] | None = None
    present: Mapping[str, int] | None = None
    pairs: Mapping[str, Any] | None = None
    complete: Mapping[str, Any] | None = None
    joint: Mapping[str, Any] | None = None
    presence: Mapping[str, Any] | None = None
    closed_afterwards: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of `compare.json`; without what holds only for several modalities, absent ones or controls."""
        optional = ("anchor", "modalities", *ABSENT, "joint", "presence", "closed_afterwards")
        return {key: value for key, value in super().as_json().items() if key not in optional or value}


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
    joint: Sequence[str] = (),
    closed_afterwards: Sequence[str] = CONTROLS,
) -> Comparison:
    """Train and measure every method with every seed at equal budget, and write the comparison directory.

    Examples:
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
        joint: joint queries such as "image+history->text", for their figures beside those of single modalities.
        closed_afterwards: closing methods that train nothing, each a row `clip + METHOD`: the `clip` runs with the gap
            closed on their training and validation rows. They stand in every comparison that trains `clip`; empty
            leaves them out. One that cannot be fitted on these rows is left out with a warning.

    Raises:
        UsageError: an unknown method or closing method, no seed, an output directory that holds another comparison, one
            modality, a joint query of another form, or a method that takes complete rows only where rows lack one.
        DataRefused: a split of one row, or one where no two rows have the same two modalities.
    """
    manifest, out = Manifest.of(data), Path(out)
    chosen = completed_recipe(settings if settings is not None else get_recipe(recipe), manifest)
    recipes = {method: apply_method(chosen, method, loss) for method in methods}
    check_comparable(manifest, split, chosen.modalities)
    joint_queries(joint, list(chosen.modalities))
    check_controls(closed_afterwards)
    anchor = _anchor_of(recipes, manifest)
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
        controls = closed_runs(runs, manifest, out / "runs", split, num_bootstrap, closed_afterwards)
        runs |= controls
        rows = manifest.select(split)
        joint_figures, stands_on = _joint_of(runs, rows, joint)
        differing = _differences_to(baseline, runs, rows, num_bootstrap, joint)
        comparison = Comparison(
            **_summarise(runs, baseline, out, joint_figures),
            differences=differing,
            anchor=anchor if len(chosen.modalities) > 2 else None,
            joint=stands_on,
            presence=_presence_of(manifest, list(chosen.modalities)),
            closed_afterwards={row: method_of_control(row) for row in controls},
        )
        written = comparison.as_json()
        write_json(out / COMPARISON, written)
        tables = [paper_table(written), *(table for _, table in pair_tables(written))]
        write_text(out / "table.md", to_markdown(tables[0]))
        write_text(out / "table.tex", to_latex(tables[0]))
        if len(tables) > 1:
            pages = [f"## {title}\n\n{to_markdown(table)}" for title, table in pair_tables(written)]
            write_text(out / "pairs.md", "\n".join(pages))
    return comparison


def check_comparable(manifest: Manifest, split: str, modalities: Iterable[str]) -> None:
    """Refuse what has no figures, before anything is trained.

    Raises:
        UsageError: no such split, one modality.
        DataRefused: a split in which no two rows have the same two modalities.
    """
    names = list(modalities)
    if len(names) < MIN_MODALITIES:
        raise UsageError(
            f"a comparison is of two modalities or more, and the recipe has {', '.join(names) or 'none'}; give it "
            f"another one of {manifest.path} with --modalities"
        )
    rows = comparable_rows(manifest, split)
    check_names(names, rows)
    common = common_rows(rows, names)
    if max(common.values()) < MIN_ROWS:
        listed = ", ".join(f"{name} {count}" for name, count in common.items())
        raise DataRefused(
            f"{manifest.path}: no two modalities have {MIN_ROWS} rows of split {split!r} in common ({listed}), so "
            "nothing can be compared; name another --split, or build the manifest with rows that have both"
        )


def _anchor_of(recipes: Mapping[str, Recipe], manifest: Manifest) -> str | None:
    """The anchor that the methods train with; each method's recipe is checked against the training rows here.

    Raises:
        UsageError: a method that takes complete rows only, where rows lack a modality.
        DataRefused: a modality that no training row has.
    """
    anchor = None
    for method, recipe in recipes.items():
        try:
            anchor = trainable_rows(recipe, manifest.select("train"))[0].anchor
        except UsageError as error:
            raise UsageError(f"{method}: {error}") from None
    return anchor


def _presence_of(manifest: Manifest, modalities: list[str]) -> dict[str, Any] | None:
    """Presence in the manifest; None for two modalities that every row has."""
    lacks = any(not mask.all() for mask in manifest.presence(modalities).values())
    return manifest_presence(manifest, modalities) if lacks or len(modalities) > 2 else None


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


def _joint_of(
    runs: dict[str, list[Path]], rows: Manifest, joint: Sequence[str]
) -> tuple[dict[str, list[dict[str, float]]], dict[str, Any] | None]:
    """The figures of the joint queries of each run of each method, and the rows that each query stands on."""
    if not joint:
        return {}, None
    columns = {key: value for key, value in measured_on(rows).items() if key != "labels"}
    figures: dict[str, list[dict[str, float]]] = {}
    stands_on = None
    for method, paths in runs.items():
        for path in paths:
            embeddings = _embeddings_of(path)
            measured = measure(embeddings, **columns, present=present_in(embeddings), include=(), joint=joint)
            stands_on = measured["joint"]
            found = {key: value for key, value in measured.items() if key.startswith("retrieval/")}
            figures.setdefault(method, []).append(found)
    return figures, stands_on


def _summarise(
    runs: dict[str, list[Path]], baseline: str, out: Path, joint: Mapping[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """The content of compare.json except the differences.

    Args:
        joint: method -> figures of joint queries of each of its runs; empty where none was asked for.
    """
    results = {method: [read_json(path / "results.json") for path in paths] for method, paths in runs.items()}
    first = results[baseline][0]
    figures = {method: [_flat_figures(one["figures"]) for one in over_runs] for method, over_runs in results.items()}
    for method, of_runs in joint.items():
        for one, beside in zip(figures[method], of_runs, strict=True):
            one.update(beside)
    shared = {key: first[key] for key in ("n", "gallery_size", "split", "recipe", "versions", "data", "budget")}
    shared |= {key: first[key] for key in ("modalities", *ABSENT) if key in first}
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


def _embeddings_of(run: Path) -> dict[str, Tensor]:
    """The embeddings of a run, in the order of modalities that its figures have; a safetensors file sorts its names."""
    embeddings = load_file(run / EMBEDDINGS)
    names = read_json(run / "results.json").get("modalities") or list(embeddings)
    return {name: embeddings[name] for name in names}


def _differences_to(
    baseline: str, runs: dict[str, list[Path]], rows: Manifest, num_bootstrap: int, joint: Sequence[str] = ()
) -> dict[str, dict[str, Interval]]:
    """Each other method minus the baseline, means over seeds, with paired 95 % intervals of a bootstrap over groups."""
    if num_bootstrap == 0:
        return {}
    embeddings = {method: [_embeddings_of(path) for path in paths] for method, paths in runs.items()}
    measured_columns = {key: value for key, value in measured_on(rows).items() if key != "labels"}
    measured_columns["present"] = present_in(embeddings[baseline][0])
    return {
        method: measure_difference(
            embeddings[method], embeddings[baseline], **measured_columns, joint=joint, num_bootstrap=num_bootstrap
        )
        for method in runs
        if method != baseline
    }
