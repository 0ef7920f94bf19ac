"""Embeddings to and from the tables of `datasets` and LanceDB: one line for each sample, one column for each modality.

    to_dataset(read_embeddings("embeddings")).push_to_hub(...)     # or .save_to_disk, .add_faiss_index("image"), ...
    measured = from_dataset(dataset.with_format(None))             # an EmbeddingSet, which measure and close take
    to_lance(embeddings, "folder", "rows"); from_lance("folder", "rows")

A column of lists of floats is a modality, whose nulls are samples that lack it; `id`, `group`, `split`, `caption` and
`positives` are what their names say, and every other column is a label: as in the Parquet files that gapless reads.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gapless.core.errors import UsageError, missing_extra
from gapless.core.values import name_of
from gapless.embeddings.array_files import arrays_of_table
from gapless.embeddings.array_sets import set_of
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.embeddings.missing import KEEP, settled


def table_of(embeddings: EmbeddingSet) -> pa.Table:
    """The embeddings as an Arrow table, vectors as lists of a fixed length in the precision of the matrix.

    Raises:
        UsageError: a label or modality whose name another column has.
    """
    known = {
        "id": embeddings.ids,
        "group": embeddings.groups,
        "split": embeddings.splits,
        "caption": embeddings.captions,
        "positives": embeddings.positives,
    }
    columns: dict[str, pa.Array] = {
        name: pa.array([value or None for value in values], pa.string())
        for name, values in known.items()
        if values is not None
    }
    taken = [name for name in (*embeddings.labels, *embeddings.modalities) if name in columns]
    taken += [name for name in embeddings.labels if name in embeddings.modalities]
    if taken:
        raise UsageError(f"a table has one column of a name; rename the label or modality {taken[0]!r}")
    for name, labels in embeddings.labels.items():
        columns[name] = pa.array([name_of(value) or None for value in labels], pa.string())
    for name, mask in embeddings.presence.items():
        matrix = np.ascontiguousarray(embeddings.embeddings[name])
        absent = None if mask.all() else pa.array(~mask)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1], mask=absent)
    return pa.table(columns)


def set_of_table(table: pa.Table, origin: str) -> EmbeddingSet:
    """The embeddings of an Arrow table; samples that lack a modality are kept.

    Raises:
        DataRefused: no vectors, vectors of different lengths, ids that repeat, rows of zeros or NaN.
    """
    return settled(set_of(arrays_of_table(Path(origin), table), Path(origin)), KEEP, least=1)


def to_dataset(embeddings: EmbeddingSet) -> Any:
    """The embeddings as a `datasets.Dataset`. Raises UsageError: datasets is not installed."""
    try:
        from datasets import Dataset
    except ImportError:
        raise missing_extra("datasets", "interop") from None
    return Dataset(table_of(embeddings))


def from_dataset(dataset: Any) -> EmbeddingSet:
    """The embeddings of a `datasets.Dataset`; errors as of `set_of_table`."""
    return set_of_table(dataset.with_format("arrow")[:], "the dataset")


def to_lance(embeddings: EmbeddingSet, uri: str | Path, name: str) -> Any:
    """Write the embeddings as a new table of a LanceDB database, and return the table.

    This is a plain table for other programs; `gapless index` writes the collections that `gapless search` reads.

    Raises:
        UsageError: lancedb is not installed. ValueError (of LanceDB): a table of that name is there.
    """
    return _lance(uri).create_table(name, data=table_of(embeddings))


def from_lance(uri: str | Path, name: str) -> EmbeddingSet:
    """The embeddings of a table of a LanceDB database; errors as of `set_of_table`."""
    return set_of_table(_lance(uri).open_table(name).to_arrow(), f"{uri}/{name}")


def _lance(uri: str | Path) -> Any:
    try:
        import lancedb
    except ImportError:
        raise missing_extra("lancedb", "interop") from None
    return lancedb.connect(str(uri))
