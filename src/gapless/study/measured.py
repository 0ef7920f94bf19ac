"""`gapless measure` as one call: every figure of any embeddings.

`gapless.measure` computes figures of arrays in memory. This module reads files, chooses the split and the label, and
writes the files that the report and the map show.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from gapless.core.errors import DataRefused, GaplessError, unknown_name
from gapless.core.files import check_file, check_new_directory, new_directory, write_bytes, write_json
from gapless.core.results import Result
from gapless.core.values import names_of
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.main_label import label_columns, main_label
from gapless.embeddings.sources import EmbeddingsSource, PathName, read_rows
from gapless.manifest.manifest import Manifest
from gapless.metrics.absent import left_out_of
from gapless.metrics.catalogue import COMPLETE
from gapless.metrics.labels import described_label, label_codes
from gapless.metrics.measure import measure
from gapless.metrics.verdict import Verdict, verdict_of
from gapless.study.map import write_map
from gapless.study.prediction import predict as predicted
from gapless.training.evaluate import MAX_LATENT_PAIRS, names_for_results, versions

ALL_ROWS = "all"
COUNTED = ("present", "pairs", "complete", "joint", "sampled")


@dataclass(frozen=True)
class Measurement(Result):
    """Every figure of embeddings, in the form of `results.json`.

    Args:
        n: pairs; where rows lack modalities, the rows that have two or more.
        gallery_size: rows that each query is ranked among; None where the pairs of modalities have different ones.
        figures: key of docs/figures.md -> number, or `{"value", "low", "high"}` with its 95 % interval.
        split: which rows.
        seed: of the bootstrap, the folds and k-means.
        versions: of the packages.
        data: facts on the source; the number of groups, the label, the number of positives.
        verdict: what kind of gap this is, what closing it helps and the command, with the figures that each sentence
            rests on (`gapless.metrics.verdict`); `prediction` in it where that was asked for.
        notes: rows that are left out, files that replace columns, and which label was chosen, in sentences.
        modalities: their names in the order that keys of pairs have them; None for image and text.
        present: modality -> the rows that have it; empty where nothing is missing, as are the next two.
        pairs: `image-text` -> n and gallery_size of that pair, and why it is left out.
        complete: n and gallery_size of the rows that have every modality, whose keys end in `@complete`.
        joint: direction of a joint query -> n, gallery_size, weights, the rows that have each part.
        sampled: queries, seed and of, where not every pair was a query; empty where each was.
    """

    n: int
    gallery_size: int | None
    figures: Mapping[str, Any]
    split: str
    seed: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    verdict: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    modalities: Sequence[str] | None = None
    present: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[str, Any] = field(default_factory=dict)
    complete: Mapping[str, int] = field(default_factory=dict)
    joint: Mapping[str, Any] = field(default_factory=dict)
    sampled: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """`results.json`; without what it has only where rows lack modalities, or with joint queries."""
        values = super().as_json()
        return {name: value for name, value in values.items() if name not in (*COUNTED, "modalities") or value}


def measure_embeddings(
    source: EmbeddingsSource,
    *,
    labels: PathName | None = None,
    groups: PathName | None = None,
    positives: PathName | None = None,
    split: str | None = None,
    label: str | None = None,
    num_bootstrap: int = 1000,
    seed: int = 0,
    out: PathName | None = None,
    html: PathName | None = None,
    data: PathName | Manifest | None = None,
    predict: bool = False,
    missing: str | None = None,
    joint: Sequence[str] = (),
    exact: bool = False,
    queries: int | None = None,
) -> Measurement:
    """Measure embeddings of files or of rows in memory: every figure.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> place = Path(mkdtemp())
        >>> rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
        >>> for name in ("image", "text"):
        ...     np.save(place / f"{name}.npy", rows)
        >>> files = {name: place / f"{name}.npy" for name in ("image", "text")}
        >>> measurement = measure_embeddings(files, num_bootstrap=0)
        >>> measurement.n, measurement.figures["retrieval/mean/R@1"]
        (30, 1.0)

    Args:
        source: directories, files, one array per modality, or rows in memory; see `gapless.embeddings.read_rows`.
        labels, groups, positives: files of one value per row.
        split: which rows, "all" for every one; by default "test" where there is one, else all.
        label: which column of labels; by default the first of two classes or more.
        num_bootstrap: resamples of groups for the 95 % intervals; 0 gives plain numbers.
        seed: of the bootstrap, the folds and k-means.
        out: also write a new directory that `gapless.report` reads.
        html: also write an interactive map.
        data: manifest, for the map's captions and thumbnails; by default the one that the embeddings were made from.
        predict: also fit quick closing methods on folds of groups, for what closing would bring; some seconds.
        missing: "keep" or "drop" rows that lack a modality; see `gapless.embeddings.read_rows`.
        joint: joint queries such as "image+history->text", for their figures beside those of single modalities.
        exact: every pair is a query, whatever their number; by default of up to 100,000 pairs.
        queries: about so many pairs are drawn as queries and ranked in the whole gallery; 2,000 of more pairs.

    Raises:
        UsageError: no such file, an unknown split or label, an output in use.
        DataRefused: rows that cannot be paired or measured, modalities of different dims.
    """
    if out is not None:
        check_new_directory(Path(out))
    if html is not None:
        check_file(Path(html))
    whole = read_rows(source, labels=labels, groups=groups, positives=positives, missing=missing)
    split = split or ("test" if whole.splits and "test" in whole.splits else ALL_ROWS)
    rows = whole if split == ALL_ROWS else whole.select(split)
    label = label or ("label" if labels is not None else None)  # a file of one class is refused, not passed over
    measured = _measured(rows, label, num_bootstrap, seed, joint, exact, queries)
    words = command_words(source, labels=labels, groups=groups, positives=positives, missing=missing)
    verdict, verdict_note = _verdict(rows, measured, words)
    prediction = {"prediction": predicted(rows, seed=seed)} if predict else {}
    measurement = Measurement(
        **measured,
        verdict={**verdict.as_json(), **prediction},
        split=split,
        notes=(
            *whole.notes,
            *_notes_on_rows(whole, rows, split),
            *_notes_on_label(rows, label),
            *_notes_on_pairs(measured),
            *_notes_on_queries(measured, queries),
            *verdict_note,
        ),
    )
    if out is not None:
        _write_directory(Path(out), rows, measurement.as_json())
    if html is not None:
        _write_map(Path(html), rows, measurement.as_json(), data, _title_of(source))
    return measurement


def _measured(
    rows: EmbeddingSet,
    label: str | None,
    num_bootstrap: int,
    seed: int,
    joint: Sequence[str],
    exact: bool,
    queries: int | None,
) -> dict[str, Any]:
    """The fields of a `Measurement` but split and notes."""
    if label is not None and label not in rows.labels:
        raise unknown_name("label", label, rows.labels)
    name = label or main_label(rows)
    sizes = {modality: matrix.shape[1] for modality, matrix in rows.embeddings.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{modality} {size}" for modality, size in sizes.items())
        raise DataRefused(f"the modalities have no space in common ({listed}); 'gapless close' makes one")
    if name is not None:
        label_codes(f"label {name!r}", rows.labels[name], len(rows))  # refused by its name, and before the work
    try:
        figures = measure(
            rows.embeddings,
            labels=None if name is None else rows.labels[name],
            groups=rows.groups,
            captions=rows.captions,
            positives=rows.positives,
            num_bootstrap=num_bootstrap,
            seed=seed,
            present=rows.present,
            joint=joint,
            exact=exact,
            queries=queries,
        )
    except GaplessError:
        raise
    except ValueError as error:  # wrong arguments of `measure` are wrong data here
        raise DataRefused(f"{rows.origin}: {error}") from None
    return {
        "n": figures.pop("n"),
        "gallery_size": figures.pop("gallery_size"),
        **{name: figures.pop(name) for name in COUNTED if name in figures},
        "modalities": names_for_results(rows.embeddings),
        "figures": figures,
        "seed": seed,
        "versions": versions(),
        "data": {
            **(rows.info.get("data") or {"source": rows.info.get("source")}),
            "groups": len(set(rows.groups)) if rows.groups else None,
            "label": name,
            **({"positives": len(set(rows.positives))} if rows.positives else {}),
        },
    }


def _notes_on_rows(whole: EmbeddingSet, rows: EmbeddingSet, split: str) -> list[str]:
    """Rows that are left out because they have no split, and a single group for everything."""
    notes = []
    without = sum(not name for name in whole.splits or [])
    if without and split != ALL_ROWS:
        notes = [f"{without:,} of {len(whole):,} rows have no split and are left out; --split all takes every row"]
    if rows.groups and len(set(rows.groups)) == 1:
        notes.append(f"every row is of the group {rows.groups[0]!r}: there are no intervals, and no probe")
    return notes


def _verdict(rows: EmbeddingSet, measured: Mapping[str, Any], words: str) -> tuple[Verdict, list[str]]:
    """The verdict, and a sentence where it is not of all rows.

    Its rules compare modalities with each other, so that of several it is about the rows that have all of them.
    """
    figures, num_rows, groups = measured["figures"], measured["n"], rows.groups
    notes = []
    if measured.get("complete"):
        figures = {key.removesuffix(COMPLETE): value for key, value in figures.items() if key.endswith(COMPLETE)}
        is_complete = np.logical_and.reduce(list(rows.presence.values()))
        groups = None if groups is None else [name for name, has in zip(groups, is_complete, strict=True) if has]
        notes = [f"the verdict is of the {measured['complete']['n']:,} of {num_rows:,} rows that have every modality"]
        num_rows = measured["complete"]["n"]
    num_groups = None if groups is None else len(set(groups))
    verdict = verdict_of(figures, num_rows, source=words, modalities=tuple(rows.embeddings), num_groups=num_groups)
    return verdict, notes


def _notes_on_pairs(measured: Mapping[str, Any]) -> list[str]:
    """The pairs of modalities, the joint queries and the complete rows that have no figures."""
    return [f"{name} is left out: {reason} ({rows})" for name, reason, rows in left_out_of(measured)]


def _notes_on_queries(measured: Mapping[str, Any], queries: int | None) -> list[str]:
    """That not every pair was a query, why, and what is missing for it."""
    sampled = measured.get("sampled")
    if not sampled:
        return []
    why = "as asked" if queries is not None else "because there are many"
    return [
        f"{sampled['queries']:,} of {sampled['of']:,} pairs were drawn as queries, {why}, and compared with all; the "
        "intervals hold the draw. Hubness and lenient recall need every query; --exact takes all"
    ]


def _notes_on_label(rows: EmbeddingSet, label: str | None) -> list[str]:
    sentence = None if label is not None else described_label(main_label(rows), label_columns(rows))
    return [sentence] if sentence else []


def command_words(source: EmbeddingsSource, **beside: PathName | None) -> str:
    """The words of a command line that name the embeddings and the files beside them, as they were given.

    >>> command_words({"image": "a.npy", "text": "my b.npy"}, groups="cases.txt", labels=None)
    "--image a.npy --text 'my b.npy' --groups cases.txt"
    """
    if isinstance(source, EmbeddingSet):
        words = ["EMB"]
    elif isinstance(source, Mapping):
        words = [word for name, path in source.items() for word in (f"--{name}", str(path))]
    else:
        words = [str(source)] if isinstance(source, str | Path) else [str(path) for path in source]
    words += [word for name, path in beside.items() if path is not None for word in (f"--{name}", str(path))]
    return shlex.join(words)


def _title_of(source: EmbeddingsSource) -> str:
    if isinstance(source, Mapping | EmbeddingSet):
        return "embeddings"
    return str(source) if isinstance(source, str | Path) else ", ".join(map(str, source))


def _write_map(
    html: Path, rows: EmbeddingSet, results: Mapping[str, Any], data: PathName | Manifest | None, title: str
) -> None:
    recorded = (rows.info.get("data") or {}).get("manifest")
    manifest_source = data or (Path(recorded) if recorded and Path(recorded).exists() else None)
    write_map(
        html,
        rows.embeddings,
        results,
        ids=rows.ids,
        captions=rows.captions,
        labels=_drawn_labels(rows) or None,
        manifest=Manifest.of(manifest_source) if manifest_source else None,
        title=title,
        present=rows.presence,
    )


def _drawn_labels(rows: EmbeddingSet) -> dict[str, Any]:
    """The labels of which every cell is one value: a map cannot show images or lists."""
    shown = {}
    for name, values in rows.labels.items():
        try:
            shown[name] = names_of(name, values)
        except DataRefused:
            continue
    return shown


def _write_directory(out: Path, rows: EmbeddingSet, results: Mapping[str, Any]) -> None:
    """Write `results.json`, and the first pairs that have every modality, which the report draws."""
    first = np.flatnonzero(np.logical_and.reduce(list(rows.presence.values())))[:MAX_LATENT_PAIRS]
    some = {name: np.asarray(matrix[first], dtype=np.float32) for name, matrix in rows.embeddings.items()}
    with new_directory(out) as partial:
        write_json(partial / "results.json", results)
        ids = json.dumps([rows.ids[row] for row in first])
        if len(first) > 1:
            write_bytes(partial / "latent.safetensors", save(some, metadata={"ids": ids}))
