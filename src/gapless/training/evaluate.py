"""Evaluates a finished run: writes every figure of a split, and what it was measured on, to `results.json`."""

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import save
from torch import Tensor

from gapless.auditing.leakage import manifest_share_in_train
from gapless.core.errors import DataRefused, UsageError
from gapless.core.files import check_directory, read_object, read_yaml, write_bytes, write_json
from gapless.core.results import Result
from gapless.inference.embed import check_modalities, embed_dataset, evaluation_dataset
from gapless.inference.presence import present_in
from gapless.manifest.manifest import Manifest
from gapless.metrics.inputs import MIN_ROWS
from gapless.metrics.labels import telling_label
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel
from gapless.training.disjoint import disjoint_of_split

logger = logging.getLogger(__name__)

PACKAGES = ("gapless", "torch", "transformers", "numpy", "scikit-learn")
MAX_LATENT_PAIRS = 512
EMBEDDINGS = "embeddings.safetensors"
ABSENT = ("present", "pairs", "complete")  # what `measure` says of rows that lack modalities
IMAGE_TEXT = ["image", "text"]  # modalities that result files need not name
POSITIVES = "positives"  # the label column that names the item of each row; rows of one item are positives


def _read_run(directory: Path) -> dict[str, Any]:
    """The configuration of a finished run.

    Raises:
        UsageError: no run, or one without a model. DataRefused: a damaged `config.yaml`.
    """
    if not (directory / "config.yaml").exists():
        raise UsageError(f"{directory} is not a run: it has no config.yaml")
    if not (directory / "model" / "config.json").exists():
        raise UsageError(f"{directory} has no finished model; continue it with --resume latest")
    return read_config(directory, ("recipe", "method", "seed", "settings"))


def read_config(directory: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A run's `config.yaml`. Raises DataRefused when it lacks one of the keys, or the training arguments."""
    config = read_yaml(directory / "config.yaml")
    settings = config.get("settings")
    missing = [key for key in keys if key not in config]
    if not isinstance(settings, dict) or not isinstance(settings.get("training"), dict):
        missing.append("settings.training")
    if missing:
        raise DataRefused(f"{directory / 'config.yaml'} is not that of a run: it lacks {', '.join(missing)}")
    return config


def versions() -> dict[str, str]:
    """Package -> version, of Python and of the packages on which figures depend."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


@dataclass(frozen=True)
class Evaluation(Result):
    """What `results.json` of an evaluated run holds.

    Args:
        n: pairs of the split; where rows lack modalities, those with two or more. gallery_size: rows that each query is
            ranked among; None where the pairs of modalities have different ones.
        figures: key of docs/figures.md -> number, or `{"value", "low", "high"}` with its 95 % interval.
        split: which rows.
        seed, method, recipe: of the run.
        budget: steps, epochs and batch of its training.
        versions: of the packages.
        data: source, fingerprint, rows of each split, groups and label of this one, and what of it leaks from train.
        train_seconds: how long the training took, where a comparison measured it.
        modalities: their names in the order that keys of pairs have them; None for image and text.
        present: modality -> rows that have it, where rows lack modalities.
        pairs: pair of modalities -> n and gallery_size of its figures, or why it has none, where rows lack modalities.
        complete: n and gallery_size of the figures KEY@complete, where rows lack modalities.
        disjoint: what `training.disjoint.disjoint_of_split` gives, where rows of the split leak from train.
    """

    n: int
    gallery_size: int | None
    figures: Mapping[str, Any]
    split: str
    seed: int
    method: str
    recipe: str
    budget: Mapping[str, Any]
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    train_seconds: float | None = None
    modalities: Sequence[str] | None = None
    present: Mapping[str, int] | None = None
    pairs: Mapping[str, Any] | None = None
    complete: Mapping[str, Any] | None = None
    disjoint: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of `results.json`; without what was not measured, or does not concern these rows."""
        optional = ("train_seconds", "modalities", *ABSENT, "disjoint")
        return {k: v for k, v in super().as_json().items() if k not in optional or getattr(self, k) is not None}


def evaluate(
    run: str | Path,
    *,
    data: str | Path | Manifest,
    split: str = "test",
    num_bootstrap: int = 1000,
    out: str | Path | None = None,
    train_seconds: float | None = None,
) -> Evaluation:
    """Measure a run's model on one split; writes `results.json` and the embeddings into the run, or into `out`.

    Examples:
        >>> import gapless
        >>> evaluation = gapless.evaluate("run", data="data", num_bootstrap=10)
        >>> 0 <= evaluation.figures["gap/centroid_distance"]["value"] <= 2
        True

    Args:
        run: a directory that `train` has finished.
        data: the manifest, or its directory.
        split: which rows are the gallery.
        num_bootstrap: resamples of groups for the 95 % intervals; 0 gives plain numbers.
        out: where to write; by default the run.
        train_seconds: how long the training took, to record it.

    Raises:
        UsageError: no finished run, no such split, or other figures in `out`.
        DataRefused: a split of one row, or one where no two rows have the same two modalities.
    """
    directory, manifest = Path(run), Manifest.of(data)
    config = _read_run(directory)
    rows = comparable_rows(manifest, split)
    place = directory if out is None else Path(out)
    refuse_other_figures(place, split, manifest.fingerprint)
    place.mkdir(parents=True, exist_ok=True)
    model = GaplessModel.from_pretrained(directory / "model")
    check_modalities(model, rows)
    embeddings = embed_split(model, rows, f"embed {split}")
    columns = measured_on(rows)
    figures = measure(embeddings, **columns, present=present_in(embeddings), num_bootstrap=num_bootstrap)
    absent = {key: figures.pop(key) for key in ABSENT if key in figures}
    evaluation = Evaluation(
        n=figures.pop("n"),
        gallery_size=figures.pop("gallery_size"),
        figures=figures,
        split=split,
        seed=config["seed"],
        method=config["method"],
        recipe=config["recipe"],
        budget=budget_of(directory, config),
        versions=versions(),
        data=describe(manifest, split),
        train_seconds=train_seconds,
        disjoint=disjoint_of_split(manifest, split, embeddings, columns, num_bootstrap),
        modalities=names_for_results(embeddings),
        **absent,
    )
    write_embeddings(place / EMBEDDINGS, embeddings, rows)
    write_latent(place / "latent.safetensors", embeddings, rows)
    write_json(place / "results.json", evaluation.as_json())
    return evaluation


def names_for_results(embeddings: Mapping[str, Any]) -> list[str] | None:
    """The names of the modalities in their order for a result file; None for image and text, which need no naming."""
    names = list(embeddings)
    return None if names == IMAGE_TEXT else names


def comparable_rows(manifest: Manifest, split: str) -> Manifest:
    """The rows of a split, which must be enough for figures.

    Raises:
        UsageError: no such split. DataRefused: a single row, which has no other row to be ranked against.
    """
    rows = manifest.select(split)
    if len(rows) < MIN_ROWS:
        raise DataRefused(
            f"{manifest.path} has {len(rows)} row in split {split!r}, and figures compare at least {MIN_ROWS} rows "
            "with each other; 'gapless data split' makes a split"
        )
    return rows


def refuse_other_figures(out: Path, split: str, fingerprint: str, kind: str | None = None) -> None:
    """Refuse to overwrite the figures of another split, another data set or another kind of model.

    Raises:
        UsageError: `out` holds such figures, or is a file.
    """
    check_directory(out)
    if not (out / "results.json").exists():
        return
    before = read_object(out / "results.json")
    data = before.get("data")
    of_data = data.get("fingerprint") if isinstance(data, dict) else None
    if before.get("kind") != kind:
        contents = f"figures of {before.get('kind') or 'an aligner'}"
    elif (before.get("split"), of_data) != (split, fingerprint):
        contents = f"the split {before.get('split')!r} or other data"
    else:
        return
    raise UsageError(f"{out / 'results.json'} holds {contents}; choose another --out")


def embed_split(model: GaplessModel, rows: Manifest, progress: str | None = None) -> dict[str, Tensor]:
    """modality -> [pair, embedding_dim] unit-norm rows on the CPU; NaN where a row lacks a modality."""
    return embed_dataset(model, evaluation_dataset(model, rows), num_workers=None, progress=progress)


def measured_on(rows: Manifest) -> dict[str, Any]:
    """The columns of a manifest as arguments of `measure`: groups, captions, the main label, and any `positives`."""
    label = main_label(rows)
    return {
        "groups": rows.table["group"].to_pylist(),
        "labels": None if label is None else rows.table[label].to_pylist(),
        "captions": None if rows.caption_column is None else rows.first_captions,
        "positives": rows.table[POSITIVES].to_pylist() if POSITIVES in rows.labels else None,
    }


def main_label(rows: Manifest) -> str | None:
    """The label for the figures of grouping: the first column that can be classes; None without one."""
    columns = {label: rows.table[label].to_pylist() for label in rows.labels if label != POSITIVES}
    return telling_label(columns, rows.table["group"].to_pylist())


def describe(manifest: Manifest, split: str) -> dict[str, Any]:
    """The entry `data` of `results.json`: source, fingerprint, rows, groups, label, and the share that leaks."""
    splits, groups = manifest.table["split"].to_pylist(), manifest.table["group"].to_pylist()
    share = manifest_share_in_train(manifest, split)
    of_split = {group for group, name in zip(groups, splits, strict=True) if name == split}
    return {
        "source": manifest.info["source"],
        "fingerprint": manifest.fingerprint,
        "rows": manifest.rows_per_split(),
        "groups": len(of_split),
        "label": main_label(manifest.select(split)),
        "leakage": {} if share is None else {f"{split}_rows_in_train_share": share},
    }


def budget_of(directory: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The steps, epochs and batch size of the run's training; None where they were not logged."""
    lines = (directory / "metrics.jsonl").read_text().splitlines() if (directory / "metrics.jsonl").exists() else []
    last = json.loads(lines[-1]) if lines else {}
    return {
        "steps": last.get("step"),
        "epochs": last.get("epoch"),
        "batch": config["settings"]["training"].get("per_device_train_batch_size"),
    }


def write_embeddings(path: Path, embeddings: dict[str, Tensor], rows: Manifest) -> None:
    """Write modality -> [pair, dim] as safetensors, with the ids of the rows in the metadata."""
    ids = json.dumps(rows.table["id"].to_pylist())
    write_bytes(path, save({name: matrix.contiguous() for name, matrix in embeddings.items()}, metadata={"ids": ids}))


def write_latent(path: Path, embeddings: dict[str, Tensor], rows: Manifest) -> None:
    """Write the first complete pairs of the split, which the report draws."""
    present = present_in(embeddings)
    if present is not None:
        complete = torch.stack([*present.values()]).all(dim=0)
        embeddings = {name: matrix[complete] for name, matrix in embeddings.items()}
        rows = Manifest(rows.path, rows.info, rows.table.filter(pa.array(complete.numpy())))
    some = Manifest(rows.path, rows.info, rows.table.slice(0, MAX_LATENT_PAIRS))
    write_embeddings(path, {name: matrix[:MAX_LATENT_PAIRS] for name, matrix in embeddings.items()}, some)
