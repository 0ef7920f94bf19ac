"""When does closing the gap while training pay? Every regime, every arm, equal budgets, seed by seed.

    python examples/regimes_study.py run frozen --medpix MEDPIX --out OUT             one regime; a second call goes on
    python examples/regimes_study.py page --out OUT --page docs/regimes.md            the page, from what has finished

MEDPIX holds train.jsonl, dev.jsonl, images/, features_train.npz and features_dev.npz. Each finished run is one folder
OUT/REGIME/ARM-seedN with the embeddings of the measured rows and how they came about; one that exists is not made
again. Nothing is chosen here: what a regime measures (dev, test) no training has seen, and closing follows validation
rows alone.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from recipe_study import Rows, arms, closed, read
from safetensors.torch import save_file
from torch import Tensor

from gapless.closing.close import close_gap
from gapless.closing.trained_heads import AdapterSettings, adapter_settings
from gapless.core.files import new_directory, write_json
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.manifest.readers.table import read_table
from gapless.models.aligner import GaplessModel
from gapless.training.evaluate import embed_split, measured_on, versions
from gapless.training.recipes import Recipe, apply_method, get_recipe
from gapless.training.run import Run, train_run

REGIMES = (
    "frozen",
    "growing-frozen",
    "phantom-two",
    "phantom-three",
    "growing-phantom",
    "medpix-scratch",
    "medpix-finetuned",
)
METHODS = ("clip", "gapless-published", "gapless", "gapless-held-out")
AFTERWARDS = ("center", "cca")  # closing methods that are fitted on the training rows of a finished model
NEEDS_MEDPIX = ("frozen", "growing-frozen", "medpix-scratch", "medpix-finetuned")
VALIDATING, GALLERY = 256, 800  # held-out pairs beside the training pairs of growing drawn data
GROUP, LABEL = "case", "location_category"

Embeddings = Mapping[str, Tensor]
Parts = Mapping[str, Embeddings]  # "train" and "measured"


@dataclass(frozen=True)
class Size:
    """What a regime costs.

    Args:
        seeds: runs of each arm.
        pairs: of the drawn data, or the sizes of growing data.
        epochs: of a training of encoders; None is the recipe's.
        max_steps: of heads on frozen rows.
        arms: those to make; none is all.
    """

    seeds: int = 5
    pairs: tuple[int, ...] = ()
    epochs: int | None = None
    max_steps: int | None = None
    arms: tuple[str, ...] = ()


def write_run(folder: Path, measured: Embeddings, facts: Mapping[str, Any]) -> None:
    """One finished run, complete or absent."""
    with new_directory(folder) as partial:
        save_file({name: rows.contiguous() for name, rows in measured.items()}, partial / "embeddings.safetensors")
        write_json(partial / "run.json", {**facts, "versions": versions()})


def write_rows(folder: Path, columns: Mapping[str, Any]) -> None:
    """What is known of the measured rows; the page measures with it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.json").exists():
        write_json(
            folder / "rows.json",
            {name: list(map(str, values)) for name, values in columns.items() if values is not None},
        )


def closed_after(parts: Parts, rows: Rows | Mapping[str, Any], method: str, seed: int) -> Embeddings:
    """The measured rows of a finished model after a closing method that was fitted on its training rows."""
    groups = rows.groups if isinstance(rows, Rows) else np.array(rows["groups"])
    with tempfile.TemporaryDirectory() as folder:
        fitted = close_gap(parts["train"], groups, method=method, seed=seed, out=Path(folder) / "closed").model
    return {name: fitted.encode(name, matrix) for name, matrix in parts["measured"].items()}


def run_all(
    folder: Path,
    size: Size,
    made: Mapping[str, Callable[[int], tuple[Parts, dict[str, Any]]]],
    rows_of: Callable[[], Any],
    afterwards: Sequence[str] = AFTERWARDS,
) -> None:
    """Every arm of a seed, then the next seed, so that an unfinished study has whole seeds.

    Args:
        made: arm -> what makes it from a seed; the strongest `clip` and "gapless-held-out" are closed afterwards too.
        rows_of: the training rows, for their groups.
        afterwards: the closing methods; `cca` takes two modalities alone.
    """
    strongest = "clip, regularised" if "clip, regularised" in made else "clip"
    for seed in range(size.seeds):
        for arm, make in made.items():
            if size.arms and arm not in size.arms:
                continue
            is_closed = arm in (strongest, "gapless-held-out")
            derived = [f"{arm}, then {method}" for method in afterwards] if is_closed else []
            missing = [name for name in (arm, *derived) if not (folder / f"{name}-seed{seed}").exists()]
            if not missing:
                continue
            started = time.perf_counter()
            parts, facts = make(seed)
            facts = {"seconds": time.perf_counter() - started, "seed": seed, "arm": arm, **facts}
            for name in missing:
                measured = (
                    parts["measured"] if name == arm else closed_after(parts, rows_of(), name.rpartition(" ")[2], seed)
                )
                write_run(folder / f"{name}-seed{seed}", measured, {**facts, "arm": name})
            print(f"{folder.name}: {arm}, seed {seed}, {facts['seconds']:.0f} s", flush=True)


# Heads on frozen rows


def frozen_arms(size: Size) -> dict[str, AdapterSettings]:
    """The arms on frozen rows: all have the same rows, steps and batches."""
    known = arms()
    named = {
        "clip": known["clip"],
        "clip, regularised": known["clip, regularised"],
        "gapless-published": adapter_settings("gapless-published"),
        "gapless": adapter_settings("gapless"),
        "gapless-held-out": adapter_settings("gapless-held-out"),
    }
    return {name: replace(one, max_steps=size.max_steps or one.max_steps) for name, one in named.items()}


def frozen_part(rows: Rows, count: int | None) -> Rows:
    """The rows of the first cases, in a fixed random order, at least so many; None is all."""
    if count is None or count >= len(rows.groups):
        return rows
    names = np.unique(rows.groups)
    np.random.default_rng(7).shuffle(names)
    sizes = np.cumsum([np.sum(rows.groups == name) for name in names])
    return rows.take(np.flatnonzero(np.isin(rows.groups, names[: int(np.searchsorted(sizes, count)) + 1])))


def run_frozen(folder: Path, medpix: Path, size: Size, count: int | None = None) -> None:
    """Heads on the frozen training rows, measured on dev."""
    train, dev = (
        read((str(medpix / f"features_{part}.npz"), str(medpix / f"{part}.jsonl")), GROUP, LABEL)
        for part in ("train", "dev")
    )
    train = frozen_part(train, count)
    write_rows(folder, {"groups": dev.groups, "labels": dev.labels, "captions": dev.captions})

    def maker(settings: AdapterSettings) -> Callable[[int], tuple[Parts, dict[str, Any]]]:
        def make(seed: int) -> tuple[Parts, dict[str, Any]]:
            both = Rows(
                {name: np.concatenate([train.features[name], dev.features[name]]) for name in train.features},
                np.concatenate([train.groups, dev.groups]),
                np.concatenate([train.labels, dev.labels]),
                [*train.captions, *dev.captions],
            )
            made = closed(train, both, settings, seed)
            count = len(train.groups)
            parts = {
                "train": {k: v[:count] for k, v in made.items()},
                "measured": {k: v[count:] for k, v in made.items()},
            }
            return parts, {"pairs": count, "steps": settings.max_steps}

        return make

    run_all(folder, size, {name: maker(one) for name, one in frozen_arms(size).items()}, lambda: train)


# Encoders from scratch, or from weights of another data set


def sized(recipe: Recipe, size: Size) -> Recipe:
    """The recipe at the size of this study, without checkpoints and evaluations."""
    training = {**recipe.training, "eval_strategy": "no", "save_strategy": "no", "logging_steps": 1}
    if size.epochs is not None:
        training["num_train_epochs"] = size.epochs
    return replace(recipe, training=training)


def run_encoders(
    folder: Path, manifest: Manifest, name: str, size: Size, change: Callable[[Recipe], Recipe] = lambda r: r
) -> None:
    """Every method trained on a manifest from the same start, measured on its test rows."""
    test = manifest.select("test")
    columns = measured_on(test)
    write_rows(folder, {key: columns[key] for key in ("groups", "labels", "captions")})
    recipe = change(sized(get_recipe(name), size))

    def maker(method: str) -> Callable[[int], tuple[Parts, dict[str, Any]]]:
        def make(seed: int) -> tuple[Parts, dict[str, Any]]:
            run = Run(name, method, seed, apply_method(recipe, method), manifest.fingerprint)
            with tempfile.TemporaryDirectory(dir=folder) as work:
                train_run(run, manifest, Path(work) / "run")
                model = GaplessModel.from_pretrained(Path(work) / "run" / "model")
                history = [json.loads(line) for line in (Path(work) / "run" / "metrics.jsonl").read_text().splitlines()]
            parts = {"measured": embed_split(model, test)}
            if method in ("clip", "gapless-held-out"):
                parts["train"] = embed_split(model, manifest.select("train"))
            followed = [line for line in history if "closing/readiness" in line]
            facts = {
                "pairs": len(manifest.select("train")),
                "steps": history[-1]["step"],
                "followed": model.config.loss.get("followed"),
            }
            return parts, {**facts, "course": followed}

        return make

    groups = {"groups": manifest.select("train").table["group"].to_pylist()}
    afterwards = AFTERWARDS if len(recipe.modalities) == 2 else ("center",)
    run_all(folder, size, {method: maker(method) for method in METHODS}, lambda: groups, afterwards)


def phantom(out: Path, pairs: int) -> Manifest:
    """The drawn data with so many pairs; 800 of them are measured, fewer where there are few."""
    folder = out / "data" / f"phantom-{pairs}"
    if folder.exists():
        return Manifest.of(folder)
    held = {"num_validation": max(64, min(256, pairs // 10)), "num_test": min(800, pairs // 4)}
    return write_phantom(folder, num_pairs=pairs, **held)


def growing_phantom(out: Path, train: int) -> Manifest:
    """The drawn data with so many training pairs; the gallery has `GALLERY` others whatever their number."""
    folder = out / "data" / f"phantom-train-{train}"
    if folder.exists():
        return Manifest.of(folder)
    return write_phantom(folder, num_pairs=train + VALIDATING + GALLERY, num_validation=VALIDATING, num_test=GALLERY)


def medpix_manifest(out: Path, medpix: Path) -> Manifest:
    """The real images: every tenth case of the training file validates, dev is measured."""
    folder = out / "data" / "medpix"
    if folder.exists():
        return Manifest.of(folder)
    rows = [json.loads(line) for line in (medpix / "train.jsonl").read_text().splitlines()]
    validating = set(sorted({row[GROUP] for row in rows})[::10])
    with tempfile.TemporaryDirectory() as work:
        sources = [f"test={medpix / 'dev.jsonl'}"]
        for split, chosen in (("train", False), ("validation", True)):
            path = Path(work) / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows if (row[GROUP] in validating) == chosen))
            sources.append(f"{split}={path}")
        return read_table(sources, folder, image_root=medpix, group_key=GROUP, label_keys=[LABEL])


def pretrained_on(manifest: Manifest, folder: Path, size: Size) -> Callable[[Recipe], Recipe]:
    """A change of a recipe: its encoders start from those that `clip` trained on the phantom, saved once."""
    if not folder.exists():
        with tempfile.TemporaryDirectory() as work:
            recipe = apply_method(sized(get_recipe("table-small"), size), "clip")
            train_run(Run("table-small", "clip", 1000, recipe, manifest.fingerprint), manifest, Path(work) / "run")
            model = GaplessModel.from_pretrained(Path(work) / "run" / "model")
        with new_directory(folder) as partial:
            for name in ("image", "text"):
                encoder: Any = model.encoders[name]
                encoder.model.save_pretrained(partial / name)
            model.tokenizers["text"].save_pretrained(partial / "text")

    def change(recipe: Recipe) -> Recipe:
        modalities = {
            name: {**entry, "encoder": {**entry["encoder"], "pretrained": str(folder / name)}}
            for name, entry in recipe.modalities.items()
        }
        return replace(recipe, modalities=modalities)

    return change


def run(regime: str, out: Path, medpix_folder: Path | None, size: Size) -> None:
    """Make what is missing of a regime."""
    folder = out / regime
    if regime in NEEDS_MEDPIX and medpix_folder is None:
        raise SystemExit(f"{regime} needs --medpix, the folder of MedPix")
    medpix = medpix_folder or Path()
    if regime == "frozen":
        run_frozen(folder, medpix, size)
    elif regime == "growing-frozen":
        for count in size.pairs or (200, 400, 800, 1650):
            run_frozen(out / f"{regime}-{count}", medpix, size, count)
    elif regime in ("phantom-two", "phantom-three"):
        recipe = "phantom-small" if regime == "phantom-two" else "phantom-three"
        run_encoders(folder, phantom(out, (size.pairs or (3000,))[0]), recipe, size)
    elif regime == "growing-phantom":
        for count in size.pairs or (400, 1650, 5000, 20000):
            run_encoders(out / f"{regime}-{count}", growing_phantom(out, count), "phantom-small", size)
    elif regime == "medpix-scratch":
        run_encoders(folder, medpix_manifest(out, medpix), "table-small", size)
    else:
        drawn = phantom(out, (size.pairs or (3000,))[0])
        change = pretrained_on(drawn, out / "data" / "pretrained", size)
        run_encoders(folder, medpix_manifest(out, medpix), "table-small", size, change)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "page"))
    parser.add_argument("regime", nargs="?", choices=REGIMES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--medpix", type=Path, default=None)
    parser.add_argument("--page", type=Path, default=None, help="the page to write")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, nargs="*", default=())
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--max-steps", type=int, default=None)
    parser.add_argument("--arms", default=None, help="names of arms, separated by semicolons; default all")
    options = parser.parse_args()
    logging.getLogger("gapless").setLevel(logging.ERROR)
    os.environ.setdefault("TQDM_DISABLE", "1")
    if options.action == "page":
        from regimes_page import write_page

        write_page(options.out, options.page or options.out / "regimes.md")
        return
    if options.regime is None:
        parser.error(f"name a regime: {', '.join(REGIMES)}")
    named = tuple(options.arms.split(";")) if options.arms else ()
    size = Size(options.seeds, tuple(options.pairs), options.epochs, options.max_steps, named)
    run(options.regime, options.out, options.medpix, size)


if __name__ == "__main__":
    main()
