"""Builds paired embeddings from plain arrays: columns are recognised by name, and other files add columns."""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from gapless.core.errors import DataRefused, UsageError
from gapless.core.values import names_of, refuse_missing, text_of
from gapless.embeddings.array_files import ArrayFile, read_array_file, read_matrix
from gapless.embeddings.combined import check_same_ids, join_any, side_by_side
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.missing import MIN_MODALITIES, settled
from gapless.embeddings.row_values import read_row_values

ID_NAMES = ("id", "ids")
GROUP_NAMES = ("group", "groups")
SPLIT_NAMES = ("split", "splits")
CAPTION_NAMES = ("caption", "captions")
POSITIVE_NAMES = ("positives", "positive")


def read_arrays(
    modalities: Mapping[str, str | Path],
    labels: str | Path | None = None,
    groups: str | Path | None = None,
    positives: str | Path | None = None,
    missing: str | None = None,
    least: int = MIN_MODALITIES,
) -> EmbeddingSet:
    """One file per modality (`--image A.npy --text B.npy`), rows aligned; the rest as in `with_files`.

    Args:
        missing: keep or drop rows that lack a modality: rows of NaN, nulls of Parquet, and ids that one file lacks,
            where every file has ids. None refuses them.
        least: modalities that a row must have to be kept.

    Raises:
        UsageError: a missing file, an unknown format.
        DataRefused: row counts that differ, ids that do not match, columns of two files that disagree, rows of NaN or
            zeros, integers, objects.
    """
    array_files = {name: read_matrix(Path(path), name) for name, path in modalities.items()}
    parts = [set_of(one, Path(modalities[name])) for name, one in array_files.items()]
    if missing is not None and all(part.has_ids for part in parts):
        whole = reduce(join_any, parts)
    else:
        counts = {name: len(one.matrices[name]) for name, one in array_files.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count} ({modalities[name]})" for name, count in counts.items())
            raise DataRefused(f"row counts differ: {listed}; row i of every file must be one pair")
        named = [part for part in parts if part.has_ids]
        for part in named[1:]:
            check_same_ids(named[0].ids, part.ids)
        whole = reduce(side_by_side, parts)
    whole = replace(whole, info={"source": {name: str(path) for name, path in modalities.items()}})
    return settled(with_files(whole, labels=labels, groups=groups, positives=positives), missing, least)


def with_files(
    rows: EmbeddingSet,
    labels: str | Path | None = None,
    groups: str | Path | None = None,
    positives: str | Path | None = None,
) -> EmbeddingSet:
    """The embeddings with columns from files of one value per row; a note says which column a file replaces.

    Args:
        labels: becomes the only label, "label".
        groups: a missing one is refused.
        positives: a file, or the name of a column of the rows ("group", "id", a label).
    """
    notes = list(rows.notes)
    if groups is not None:
        names = names_of(str(groups), read_row_values(Path(groups), "groups", len(rows)))
        refuse_missing(str(groups), "group", names)
        if rows.groups is not None and rows.groups != names:
            notes.append(f"the groups are those of {groups}; other ones in {rows.origin} are not used")
        rows = replace(rows, groups=names)
    if positives is not None:
        column = _column_of(rows, str(positives))
        if column is None and not Path(positives).exists():
            columns = ", ".join(["id", "group", *rows.labels])
            raise UsageError(
                f"positives are a file of one value per row or a column ({columns}), got {str(positives)!r}"
            )
        items = column if column is not None else read_row_values(Path(positives), "positives", len(rows))
        rows = replace(rows, positives=names_of(str(positives), items))
    if labels is not None:
        values = names_of(str(labels), read_row_values(Path(labels), "labels", len(rows)))
        if rows.labels:
            notes.append(f"the labels are those of {labels}; the columns {', '.join(rows.labels)} are not used")
        rows = replace(rows, labels={"label": values})
    return replace(rows, notes=tuple(notes))


def _column_of(rows: EmbeddingSet, name: str) -> list[Any] | None:
    own = {
        **dict.fromkeys(ID_NAMES, rows.ids if rows.has_ids else None),
        **dict.fromkeys(GROUP_NAMES, rows.groups),
        **dict.fromkeys(CAPTION_NAMES, rows.captions),
        **dict.fromkeys(POSITIVE_NAMES, rows.positives),
    }
    return own[name] if own.get(name) is not None else rows.labels.get(name)


def set_of_file(path: Path) -> EmbeddingSet:
    """The embeddings of one array file. Raises DataRefused for a file without a [row, dim] matrix."""
    array_file = read_array_file(path)
    if not array_file.matrices:
        raise DataRefused(f"{path} holds no [row, dim] matrix")
    return set_of(array_file, path)


def set_of(array_file: ArrayFile, path: Path) -> EmbeddingSet:
    """The matrices and columns of a file as embeddings; columns that are not id, group, split, ... are labels.

    Raises:
        DataRefused: row counts that differ, or two columns of one meaning.
    """
    counts = {name: len(matrix) for name, matrix in array_file.matrices.items()}
    counts |= {name: len(values) for name, values in array_file.columns.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataRefused(f"{path}: row counts differ: {listed}")
    num_rows = next(iter(counts.values()))

    def column(names: tuple[str, ...]) -> list[str] | None:
        matches = [name for name in names if name in array_file.columns]
        if len(matches) > 1:
            raise DataRefused(f"{path} holds both {matches[0]!r} and {matches[1]!r}; keep one of them")
        return names_of(f"{path}: {matches[0]}", array_file.columns[matches[0]]) if matches else None

    captions = next((array_file.columns[name] for name in CAPTION_NAMES if name in array_file.columns), None)
    reserved_names = {*ID_NAMES, *GROUP_NAMES, *SPLIT_NAMES, *CAPTION_NAMES, *POSITIVE_NAMES}
    ids = column(ID_NAMES)
    return EmbeddingSet(
        ids=ids or [str(row) for row in range(num_rows)],
        embeddings=array_file.matrices,
        groups=column(GROUP_NAMES),
        labels={name: values for name, values in array_file.columns.items() if name not in reserved_names},
        splits=column(SPLIT_NAMES),
        captions=None if captions is None else [_first_text(value) for value in captions],
        positives=column(POSITIVE_NAMES),
        info={"source": str(path)},
        has_ids=ids is not None,
        origin=str(path),
        present=array_file.present or None,
    )


def _first_text(value: Any) -> str:
    """A caption; of a list of captions the first, which is the one that is embedded."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else ""
    return text_of(value)
