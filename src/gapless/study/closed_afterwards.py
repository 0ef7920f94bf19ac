"""The controls of a comparison: its `clip` runs with the gap closed afterwards, by methods that train nothing.

A loss that closes the gap must do more than a closed form does to a finished `clip` model in seconds. For each run the
training and validation rows are embedded, a closing method is fitted on them, and the run's own test embeddings go
through what it found. No test row is fitted on.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gapless.closing.base import quick_methods
from gapless.closing.close import close_gap
from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.core.files import PARTIAL_MARK, read_json, write_json
from gapless.inference.presence import present_in
from gapless.manifest.manifest import TRAIN, VALIDATION, Manifest
from gapless.metrics.measure import measure
from gapless.models.aligner import GaplessModel
from gapless.training.disjoint import disjoint_of_split
from gapless.training.evaluate import (
    ABSENT,
    EMBEDDINGS,
    POSITIVES,
    embed_split,
    measured_on,
    write_embeddings,
    write_latent,
)

logger = logging.getLogger(__name__)

CLOSED = "clip"  # the method whose runs are closed afterwards
CONTROLS = ("center", "cca")
MAX_ROWS = 20_000  # training rows that are embedded and fitted on; more change a mean and a covariance little
MARK = " + "

Runs = dict[str, list[Path]]


def check_controls(methods: Sequence[str]) -> None:
    """Refuse closing methods that are unknown, named twice, or train.

    Raises:
        UsageError: the name and the valid ones.
    """
    for name in methods:
        if name not in quick_methods():
            raise unknown_name("closing method that trains nothing", name, quick_methods())
    if len(set(methods)) < len(methods):
        raise UsageError(f"each closing method once, got {', '.join(methods)}")


def control_name(method: str) -> str:
    """The row of a comparison: `clip + center`."""
    return f"{CLOSED}{MARK}{method}"


def method_of_control(row: str) -> str:
    """The closing method of a row.

    >>> method_of_control(control_name("center"))
    'center'
    """
    return row.removeprefix(f"{CLOSED}{MARK}")


def closed_runs(
    runs: Runs, manifest: Manifest, out: Path, split: str, num_bootstrap: int, methods: Sequence[str]
) -> Runs:
    """The runs of `clip` closed afterwards by each method.

    Finished ones in the output directory are kept. A closing method that cannot be fitted on these rows (too few
    groups, or more modalities than it takes) is left out with a sentence.

    Args:
        runs: method -> directories of its finished runs; without `clip` there is nothing to close.
        manifest: with the rows of every split.
        out: the directory of the runs.
        split: which rows the runs were measured on.
        num_bootstrap: resamples of groups for the intervals; 0 gives plain numbers.
        methods: names of closing methods.

    Returns:
        row -> directories of its runs.
    """
    sources = runs.get(CLOSED, [])
    closed = {
        control_name(method): [out / f"{CLOSED}+{method}{source.name.removeprefix(CLOSED)}" for source in sources]
        for method in methods
        if sources
    }
    left_out: dict[str, str] = {}
    for number, source in enumerate(sources):
        unfinished = {
            method: closed[control_name(method)][number]
            for method in methods
            if control_name(method) not in left_out
            and not (closed[control_name(method)][number] / "results.json").exists()
        }
        if unfinished:
            left_out |= _close_run(source, unfinished, manifest, split, num_bootstrap)
    for row, sentence in left_out.items():
        logger.warning(f"{row} is left out of the comparison: {sentence}")
        closed.pop(row)
    return closed


def _close_run(
    source: Path, wanted: Mapping[str, Path], manifest: Manifest, split: str, num_bootstrap: int
) -> dict[str, str]:
    """Close one run by some methods, and write a directory for each; row -> why a method cannot be fitted."""
    fitted_on = _rows_to_fit(manifest)
    embeddings = _embedded(GaplessModel.from_pretrained(source / "model"), fitted_on)
    left_out = {}
    for method, directory in wanted.items():
        try:
            model = _closing_model(embeddings, fitted_on, method, read_json(source / "results.json")["seed"], directory)
        except (UsageError, DataRefused) as error:
            left_out[control_name(method)] = str(error)
            continue
        _measure(source, model, manifest, split, method, num_bootstrap, directory)
    return left_out


def _rows_to_fit(manifest: Manifest) -> list[Manifest]:
    """The rows of training, at most `MAX_ROWS` evenly spread over them, and those of validation."""
    training = manifest.select(TRAIN)
    if len(training) > MAX_ROWS:
        places = np.linspace(0, len(training) - 1, MAX_ROWS).round().astype(int)
        training = Manifest(training.path, training.info, training.table.take(places))
    has_validation = VALIDATION in manifest.rows_per_split()
    return [training, *([manifest.select(VALIDATION)] if has_validation else [])]


def _embedded(model: GaplessModel, parts: Sequence[Manifest]) -> dict[str, Tensor]:
    """modality -> the rows of all parts; NaN where a row lacks it."""
    embedded = [embed_split(model, part, "embed to close") for part in parts]
    return {name: torch.cat([rows[name] for rows in embedded]) for name in embedded[0]}


def _closing_model(
    embeddings: Mapping[str, Tensor], parts: Sequence[Manifest], method: str, seed: int, directory: Path
) -> GaplessModel:
    """What a closing method finds on training and validation rows; the model is written into the directory."""
    for unfinished in (directory, *directory.parent.glob(f".{directory.name}{PARTIAL_MARK}*")):
        shutil.rmtree(unfinished, ignore_errors=True)
    columns = [measured_on(part) for part in parts]

    def joined(name: str) -> list[Any] | None:
        values = [one[name] for one in columns]
        return None if any(value is None for value in values) else [cell for value in values for cell in value]

    present = present_in(embeddings)
    return close_gap(
        embeddings,
        joined("groups"),
        method=method,
        seed=seed,
        out=directory / "model",
        ids=[row for part in parts for row in part.table["id"].to_pylist()],
        splits=[row for part in parts for row in part.table["split"].to_pylist()],
        captions=joined("captions"),
        positives=joined(POSITIVES),
        present=None if present is None else {name: mask.numpy() for name, mask in present.items()},
    ).model


def _measure(
    source: Path,
    model: GaplessModel,
    manifest: Manifest,
    split: str,
    method: str,
    num_bootstrap: int,
    directory: Path,
) -> None:
    """Write the figures of a run's test embeddings in the closed space: `results.json` in the form of `evaluate`."""
    embeddings = {name: _moved(model, name, matrix) for name, matrix in load_file(source / EMBEDDINGS).items()}
    rows = manifest.select(split)
    columns = measured_on(rows)
    figures = measure(embeddings, **columns, present=present_in(embeddings), num_bootstrap=num_bootstrap)
    disjoint = disjoint_of_split(manifest, split, embeddings, columns, num_bootstrap)
    own = (*ABSENT, "disjoint")  # figures of the run itself, which say nothing of the closed space
    before = {key: value for key, value in read_json(source / "results.json").items() if key not in own}
    absent = {key: figures.pop(key) for key in ABSENT if key in figures}
    sizes = {key: figures.pop(key) for key in ("n", "gallery_size")}
    closed: dict[str, Any] = {
        "method": control_name(method),
        "closed_afterwards": method,
        "closed_run": source.name,
        **({} if disjoint is None else {"disjoint": disjoint}),
    }
    write_embeddings(directory / EMBEDDINGS, embeddings, rows)
    write_latent(directory / "latent.safetensors", embeddings, rows)
    write_json(directory / "results.json", {**before, **sizes, "figures": figures, **closed, **absent})


def _moved(model: GaplessModel, name: str, rows: Tensor) -> Tensor:
    """The rows in the closed space; those that are NaN stay so."""
    has = ~torch.isnan(rows).any(dim=1)
    moved = rows.new_full((len(rows), model.config.embedding_dim), torch.nan)
    if has.any():
        moved[has] = model.encode(name, rows[has], batch_size=4096)
    return moved
