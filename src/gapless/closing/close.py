"""Closing the gap of frozen embeddings: check, split, fit, measure, write.

    closed = close_gap({"image": z, "text": w}, groups, out=Path("closed"))
    closed.figures["gap/centroid_distance"], closed.before["gap/centroid_distance"]
    GaplessModel.from_pretrained("closed").encode("image", z)

The result is a model directory like any other: `vector` encoders take the cached rows, or, where the frozen model that
made them is given, its encoders with their heads continued.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gapless.closing.base import (
    ClosingMethod,
    ClosingPairs,
    ClosingSettings,
    check_varied,
    method_of,
)
from gapless.closing.fitting import fit_method
from gapless.closing.frozen import continued, frozen_model
from gapless.closing.split import MIN_GROUPS, split_fingerprint, split_rows
from gapless.closing.trained_heads import usual_settings
from gapless.core.captions import caption_codes
from gapless.core.errors import DataRefused, UsageError, unknown_name
from gapless.core.files import check_new_directory, new_directory, plain, write_json
from gapless.core.geometry import blocks
from gapless.core.locks import LOCK_FILE, only_writer
from gapless.core.plan import directory_beside
from gapless.core.results import Result
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.main_label import main_label
from gapless.embeddings.stored_rows import Rows, StoredRows
from gapless.inference.embed import embed_dataset
from gapless.manifest.manifest import TRAIN, VALIDATION
from gapless.metrics.inputs import MIN_ROWS, check_embeddings, check_present, group_index, item_classes
from gapless.metrics.labels import label_codes, telling_label
from gapless.metrics.measure import Part, measure
from gapless.models.aligner import GaplessModel
from gapless.training.evaluate import versions

IN_MEMORY_BYTES = 1 << 29  # 130,000 pairs of 512 numbers: more are read from where they are, block by block
FP32_BYTES = 4
PROJECTED_AT_ONCE = 1 << 16
FIGURES: tuple[Part, ...] = ("gap", "retrieval", "mixed", "further")


@dataclass(frozen=True)
class ClosedGap(Result):
    """A model whose gap is closed, and what was measured on the rows that were held back.

    Args:
        model: takes the embeddings, or raw inputs where the frozen model is inside; in evaluation mode.
        path: the model directory.
        results: what `results.json` there holds.
        takes: "vectors" or "raw inputs".
        note: a sentence that says why, for a set of embeddings that names its model.
        notes: what of the files is not used, in sentences.
    """

    model: GaplessModel
    path: Path
    results: Mapping[str, Any]
    takes: str
    note: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What `gapless close --json` prints: the directory, what the model takes, and `results.json`."""
        return {"model": str(self.path), "takes": self.takes, **self.results}

    @property
    def figures(self) -> Mapping[str, Any]:
        """Key -> figure of the held-back pairs in the closed space."""
        figures: Mapping[str, Any] = self.results["figures"]
        return figures

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The same figures of the embeddings as they were; None where the dims differ, so that there are none."""
        before: Mapping[str, Any] | None = self.results["before"]
        return before


def close_set(
    rows: EmbeddingSet,
    settings: ClosingSettings | None = None,
    method: str | None = None,
    seed: int = 0,
    *,
    out: Path,
) -> ClosedGap:
    """`close_gap` of an embedding set: its groups, splits, captions and positives count, and its model goes inside.

    Args:
        rows: what `embeddings.store.read_embeddings` or `embeddings.array_sets.read_arrays` gave.
        settings, method, seed, out: as in `close_gap`.

    Raises:
        UsageError, DataRefused: as in `close_gap`.
    """
    frozen, note = frozen_model(rows.info)
    label = main_label(rows)
    return close_gap(
        rows.embeddings,
        rows.groups,
        settings,
        method,
        seed,
        out=out,
        ids=rows.ids,
        splits=rows.splits,
        captions=rows.captions,
        positives=rows.positives,
        labels=None if label is None else rows.labels[label],
        frozen=frozen,
        data=rows.info.get("data") or {"source": rows.info.get("source")},
        note=note,
        present=rows.present,
    )


def close_gap(
    embeddings: Mapping[str, Any],
    groups: Any = None,
    settings: ClosingSettings | None = None,
    method: str | None = None,
    seed: int = 0,
    *,
    out: Path,
    ids: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    positives: Any = None,
    labels: Any = None,
    frozen: GaplessModel | None = None,
    data: Mapping[str, Any] | None = None,
    note: str = "",
    present: Mapping[str, np.ndarray] | None = None,
) -> ClosedGap:
    """Fit a closing method on cached embeddings, measure it on groups that were held back, and write the model.

    Args:
        embeddings: modality -> [pair, dim] floats, rows aligned; dims may differ, norms do not matter.
        groups: [pair] what must not be split between training and validation; default: every pair its own.
        settings: of the method, of the type that it names; default: `adapter_settings()`, or its type's defaults.
        method: a name of `CLOSING_METHODS`: auto, cca, adapter, ...; default: that of the settings, without settings
            auto, which tries the others and takes some minutes.
        seed: of the weights, the order and the split.
        out: directory to write: the model, `metrics.jsonl` of a training, `results.json` with the figures of the
            validation part before and after.
        ids: [pair] names of the rows.
        splits: [pair]; with rows of `train` among them only those train, and those of `validation` validate.
        captions: [pair]; with `loss.mask_duplicates` the same ones (see `gapless.core.captions`) are positives of each
            other; default: equal rows of the anchor.
        labels: [pair] classes, missing ones None or ""; auto then judges by the V-measure too.
        positives: [pair] what each row shows; in place of `captions`, rows of one item are positives of each other,
            and they count for each other in `lenient_R@K`.
        frozen: the model that made the embeddings; its encoders and heads go into the result.
        data: what `results.json` says about the data.
        note: a sentence on the model inside, for the result.
        present: modality -> [pair] bool, whether a row has it, as in `measure`; rows that have fewer than two are left
            out.

    Raises:
        UsageError: an unknown method, setting or modality, an output directory in use, a method that takes complete
            rows only.
        DataRefused: row counts that differ, rows of NaN or zeros, too few groups.
        ValueError: settings of another method.
    """
    chosen = method_of(method, settings)
    settings = settings_for(chosen, settings)
    check_new_directory(out)
    embeddings, present, (groups, ids, splits, captions, positives, labels) = paired_rows(
        embeddings, present, (groups, ids, splits, captions, positives, labels)
    )
    pairs, index = pairs_of(embeddings, groups, settings, seed, ids, splits, captions, positives, present)
    work = directory_beside(out)
    classes = None if labels is None else label_codes("labels", labels, len(index)).numpy()
    pairs = replace(pairs, work=work, labels=classes)
    with only_writer(work, named=str(out)):
        with new_directory(out) as partial:
            fitted = fit_method(chosen, pairs, settings, seed, folder=partial)
            results = {
                **fitted.facts,
                **figures_of(pairs, fitted.model, pairs.positives[pairs.validation] if positives is not None else None),
                "method": chosen.name,
                "settings": {**plain(asdict(settings)), "anchor": pairs.anchor},
                "seed": seed,
                "versions": versions(),
                "data": {**(data or {}), "groups": len(np.unique(index[pairs.validation]))},
                "rows": {TRAIN: len(pairs.train), VALIDATION: len(pairs.validation)},
                "split_fingerprint": split_fingerprint(pairs.ids, pairs.train, pairs.validation),
            }
            write_json(partial / "results.json", results)
            model = fitted.model if frozen is None else continued(frozen, fitted.model)
            model.save_pretrained(partial)
        _remove_notes(work)
    return ClosedGap(model, out, results, "vectors" if frozen is None else "raw inputs", note)


def _remove_notes(work: Path) -> None:
    """What an interrupted fit would have gone on from; the lock file is removed by whoever holds it."""
    for path in work.iterdir():
        if path.name != LOCK_FILE:
            path.unlink()


def settings_for(method: ClosingMethod[Any], settings: ClosingSettings | None) -> ClosingSettings:
    """The settings, or the defaults of the method; plain `ClosingSettings` stand for the defaults with those changed.

    Raises:
        ValueError: settings of another method; a method whose settings are no dataclass with those of all methods.
    """
    expected = method.settings
    if not (is_dataclass(expected) and issubclass(expected, ClosingSettings)):
        raise ValueError(f"the settings of the closing method {method.name!r} must be a dataclass of ClosingSettings")
    if settings is None:
        return usual_settings(method)
    if type(settings) is ClosingSettings:
        return replace(usual_settings(method), **{one.name: getattr(settings, one.name) for one in fields(settings)})
    if not isinstance(settings, expected):
        raise ValueError(f"{method.name} takes {expected.__name__}, got {type(settings).__name__}")
    return settings


def paired_rows(
    embeddings: Mapping[str, Any], present: Mapping[str, Any] | None, columns: Sequence[Any]
) -> tuple[Mapping[str, Any], dict[str, np.ndarray] | None, list[Any]]:
    """The rows that have two modalities or more, with their columns; `present` is None where nothing is missing then.

    Raises:
        ValueError: masks that do not fit. DataRefused: a modality that no row has, no row with two modalities.
    """
    checked = check_present(present, embeddings)
    if checked is None:
        return embeddings, None, list(columns)
    masks = {name: mask.numpy() for name, mask in checked.items()}
    kept = np.flatnonzero(np.sum(list(masks.values()), axis=0) >= 2)
    if not len(kept):
        raise DataRefused(f"no row has two of {', '.join(masks)}, so that there are no pairs")
    taken = {name: mask[kept] for name, mask in masks.items()}
    rows = embeddings if len(kept) == len(masks[next(iter(masks))]) else _taken(embeddings, kept)
    cells = [values if values is None else [values[row] for row in kept] for values in columns]
    return rows, None if all(mask.all() for mask in taken.values()) else taken, cells


def _taken(embeddings: Mapping[str, Any], kept: np.ndarray) -> dict[str, Any]:
    return {name: matrix[kept] for name, matrix in embeddings.items()}


def pairs_of(
    embeddings: Mapping[str, Any],
    groups: Any,
    settings: ClosingSettings,
    seed: int,
    ids: Sequence[str] | None,
    splits: Sequence[str] | None,
    captions: Sequence[str] | None,
    positives: Any,
    present: Mapping[str, np.ndarray] | None = None,
) -> tuple[ClosingPairs, np.ndarray]:
    """What a method fits on, and the groups of all rows as integers. The rows are checked here and nowhere after.

    Args:
        embeddings, groups, settings, seed, ids, splits, captions, positives: as in `close_gap`.
        present: of `paired_rows`.

    Raises:
        UsageError: an unknown anchor, fewer than two modalities. DataRefused: rows or groups that cannot be used.
    """
    rows = unit_rows(embeddings, present)
    anchor = settings.anchor or ("text" if "text" in rows else list(rows)[-1])
    if anchor not in rows:
        raise unknown_name("anchor modality", anchor, rows)
    num_rows = len(rows[anchor])
    index = group_index(groups, num_rows).numpy()
    train, validation = split_rows(index, splits, settings.validation_share, seed)
    if positives is None:
        items = positives_of(captions if captions is not None else rows[anchor])
        if captions is None and present is not None:  # rows without the anchor are not the same item
            absent = np.flatnonzero(~present[anchor])
            items[absent] = items.max() + 1 + np.arange(len(absent))
    else:
        items = item_classes(positives, num_rows).numpy()
    names = [f"row {row}" for row in range(num_rows)] if ids is None else list(ids)
    pairs = ClosingPairs(rows, anchor, names, train, validation, items, index, present=present)
    check_varied(pairs)
    return pairs, index


def unit_rows(embeddings: Mapping[str, Any], present: Mapping[str, np.ndarray] | None = None) -> dict[str, Rows]:
    """Unit-norm fp32 rows of every modality, zeros where a row is absent; dims may differ.

    In memory while they take at most `IN_MEMORY_BYTES` together, otherwise read where they are stored.

    Raises:
        UsageError: fewer than two modalities. DataRefused: rows that cannot be paired or used.
    """
    if len(embeddings) < 2:
        raise UsageError(
            f"a gap needs at least 2 modalities, got {len(embeddings)} ({', '.join(embeddings) or 'none'})"
        )
    counts = {name: len(matrix) for name, matrix in embeddings.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataRefused(f"row i of every modality must be one pair, but the rows differ in number: {listed}")
    (num_rows,) = set(counts.values())
    if num_rows < MIN_ROWS:
        raise DataRefused(f"{num_rows} row(s) cannot be split; at least {MIN_GROUPS} groups are needed")
    masks = None if present is None else {name: torch.from_numpy(mask) for name, mask in present.items()}
    if sum(FP32_BYTES * prod(matrix.shape) for matrix in embeddings.values()) > IN_MEMORY_BYTES:
        return {name: StoredRows.checked(name, matrix, masks) for name, matrix in embeddings.items()}
    return {
        name: check_embeddings({name: matrix}, minimum=1, present=masks)[name].float().cpu()
        for name, matrix in embeddings.items()
    }


def positives_of(rows: Sequence[str] | Rows) -> np.ndarray:
    """Integers that are equal where the captions, or the rows of a matrix, are the same, in order of appearance."""
    if isinstance(rows, Tensor | StoredRows):
        # One text in two batches differs in the last bits; a few projections, rounded, hardly ever fall apart by that.
        projections = np.random.default_rng(0).standard_normal((rows.shape[1], 4))
        keys = np.empty((len(rows), projections.shape[1]))
        for part in blocks(len(rows), PROJECTED_AT_ONCE):
            keys[part] = rows[part].numpy() @ projections
        return _codes_of_rows(np.round(keys, 4))
    return np.array(caption_codes(rows))


def _codes_of_rows(keys: np.ndarray) -> np.ndarray:
    """[row] integers in order of appearance, equal where rows are the same."""
    order = np.lexsort(keys.T)  # stable, so that the first of equal rows comes first
    ordered = keys[order]
    is_new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    codes: np.ndarray = np.unique(first, return_inverse=True)[1]
    return codes


def figures_of(pairs: ClosingPairs, model: GaplessModel, positives: np.ndarray | None) -> dict[str, Any]:
    """The figures of the validation part: `before` where the dims allow it, `figures` after."""
    held = pairs.part(pairs.validation)
    options: dict[str, Any] = {"include": FIGURES, "positives": positives, "groups": pairs.groups[pairs.validation]}
    options["present"] = pairs.masks(pairs.validation)
    if pairs.labels is not None:
        classes = {"label": [None if code < 0 else str(code) for code in pairs.labels[pairs.validation].tolist()]}
        if telling_label(classes) is not None:
            options |= {"include": (*FIGURES, "grouping"), "labels": classes["label"]}
    after = measure(embed_dataset(model, pairs.dataset(pairs.validation), batch_size=4096), **options)
    comparable = len(set(pairs.sizes.values())) == 1
    return {
        "n": after.pop("n"),
        "gallery_size": after.pop("gallery_size"),
        **{name: after.pop(name) for name in ("present", "pairs", "complete") if name in after},
        "split": VALIDATION,
        "before": {k: value for k, value in measure(held, **options).items() if "/" in k} if comparable else None,
        "figures": after,
    }
