"""Reads embeddings from any source: directories and files, one plain array per modality, or rows in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gapless.core.errors import UsageError
from gapless.core.plan import PLAN
from gapless.embeddings.array_sets import read_arrays
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.missing import KEEP, MIN_MODALITIES, settled
from gapless.embeddings.store import read_embeddings

PathName = str | Path
EmbeddingsSource = PathName | Sequence[PathName] | Mapping[str, PathName] | EmbeddingSet


def read_rows(
    source: EmbeddingsSource,
    *,
    labels: PathName | None = None,
    groups: PathName | None = None,
    positives: PathName | None = None,
    missing: str | None = None,
    least: int = MIN_MODALITIES,
) -> EmbeddingSet:
    """The embeddings of a source.

    Args:
        source: a directory that `gapless.embed` wrote or a file with a matrix per modality; several, read as one; one
            array file per modality (`{"image": "a.npy", "text": "b.npy"}`); or an `EmbeddingSet`, as it is.
        labels, groups, positives: files of one value per row, `positives` also the name of a column; see `with_files`.
        missing: "keep" or "drop" rows that lack a modality (a row of NaN, a null of Parquet, an id that one file lacks,
            a row that a directory marks); None refuses them, but takes an `EmbeddingSet` as it is.
        least: modalities that a row must have to be kept.

    Raises:
        UsageError: no such file, or files beside an `EmbeddingSet`. DataRefused: rows that cannot be paired or used.
    """
    beside = {"labels": labels, "groups": groups, "positives": positives}
    if isinstance(source, EmbeddingSet):
        if any(value is not None for value in beside.values()):
            raise UsageError("files of labels, groups or positives go with paths; an EmbeddingSet has its own")
        return source if missing is None and source.present is None else settled(source, missing or KEEP, least)
    if isinstance(source, Mapping):
        return read_arrays(source, **beside, missing=missing, least=least)
    paths = [source] if isinstance(source, str | Path) else source
    return read_embeddings(*paths, **beside, missing=missing, least=least)


def is_embeddings_directory(path: PathName) -> bool:
    """Whether `gapless embed` began this directory, whether or not it has finished it."""
    return (Path(path) / PLAN).exists()
