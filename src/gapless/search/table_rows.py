"""The columns of a collection's table, and embedded samples as its rows: one for each modality that a sample has."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gapless.core.values import name_of
from gapless.search.collection import METADATA_KEY, OWN_FIELDS, PREVIEW, key_of
from gapless.search.row_readers import check_unit_norm
from gapless.search.samples import content_column, preview_column, text_of_preview

HIDDEN_COLUMNS = ("row", "vector", "thumbnail", "content", PREVIEW)


class Chunk(NamedTuple):
    """Embedded samples, some at a time.

    Args:
        vectors: modality -> [sample, dim] unit norm, where the sample has it.
        columns: name -> [sample], as `Samples.columns`.
        present: modality -> [sample] bool; a modality that is not named is in every sample.
    """

    vectors: Mapping[str, np.ndarray]
    columns: Mapping[str, Sequence[Any]]
    present: Mapping[str, np.ndarray]


def label_columns(labels: Sequence[str]) -> dict[str, str]:
    """Label -> column: its own name, with `label_` before it where the name is taken or is no plain name."""
    columns: dict[str, str] = {}
    for label in labels:
        plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in label)
        column = label if plain == label and not label.startswith("_") else f"label_{plain}"
        if column.lower() in {*OWN_FIELDS, *HIDDEN_COLUMNS}:
            column = f"label_{column}"
        while column.lower() in {taken.lower() for taken in columns.values()}:
            column += "_"
        columns[label] = column
    return columns


def schema_of(info: Mapping[str, Any], with_previews: bool = True) -> pa.Schema:
    """The table's columns, and the information in its metadata.

    Args:
        with_previews: False for a collection of an earlier version, which has no column of previews.
    """
    return pa.schema(
        [
            *((name, pa.string()) for name in ("row", "id", "modality", "caption", "group", "split", "source")),
            ("content", pa.string()),
            *((column, pa.string()) for column in info["labels"].values()),
            ("has_thumbnail", pa.bool_()),
            ("thumbnail", pa.binary()),
            *([(PREVIEW, pa.string())] if with_previews else []),
            ("vector", pa.list_(pa.float32(), info["embedding_dim"])),
        ],
        metadata={METADATA_KEY: json.dumps(dict(info), sort_keys=True).encode()},
    )


def batches_of(chunks: Iterator[Chunk], info: Mapping[str, Any], origin: str, schema: pa.Schema) -> Iterator[Any]:
    """Embedded samples as rows of the table, one batch for each chunk and modality that some of its samples have."""
    for chunk in chunks:
        size = len(chunk.columns["id"])
        for modality in info["modalities"]:
            if modality not in chunk.vectors:
                continue
            rows = np.flatnonzero(chunk.present.get(modality, np.ones(size, dtype=bool))).tolist()
            if rows:
                values = row_values({name: [of[row] for row in rows] for name, of in chunk.columns.items()}, modality)
                values |= {
                    column: [name_of(value) or None for value in _of_rows(chunk.columns.get(label), rows)]
                    for label, column in info["labels"].items()
                }
                values["source"] = [origin] * len(rows)
                vectors = np.ascontiguousarray(chunk.vectors[modality][rows], dtype=np.float32)
                check_unit_norm(vectors)
                yield batch_of(values, vectors, schema)


def _of_rows(values: Sequence[Any] | None, rows: Sequence[int]) -> list[Any]:
    return [None] * len(rows) if values is None else [values[row] for row in rows]


def row_values(columns: Mapping[str, Sequence[Any]], modality: str) -> dict[str, Sequence[Any]]:
    """The own fields of rows of one modality, by the names of the table's columns."""
    size = len(columns["id"])
    nothing = [None] * size
    previews = columns.get(preview_column(modality), nothing)
    texts = [text_of_preview(one) for one in previews]
    thumbnails = [one if text is None else None for one, text in zip(previews, texts, strict=True)]
    return {
        "row": [key_of(sample, modality) for sample in columns["id"]],
        "id": columns["id"],
        "modality": [modality] * size,
        "caption": [caption or None for caption in columns.get("captions", nothing)],
        "group": columns.get("group", nothing),
        "split": columns.get("split", nothing),
        "content": columns[content_column(modality)],
        "has_thumbnail": [one is not None for one in thumbnails],
        "thumbnail": thumbnails,
        PREVIEW: texts,
    }


def batch_of(values: Mapping[str, Sequence[Any]], vectors: np.ndarray, schema: pa.Schema) -> Any:
    """A record batch of the schema's columns.

    Args:
        vectors: [row, dim] fp32.
    """
    arrays = [
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        if column.name == "vector"
        else pa.array(values[column.name], column.type)
        for column in schema
    ]
    return pa.record_batch(arrays, schema=schema)
