"""`gapless index export`: the rows of a collection as one CSV or Parquet file that any other tool reads.

    export_collection("collection", out="rows.parquet", where="split = 'test'")

The file has one line for each row of the collection. It is written as the rows are read, so that its size is not
limited by the memory, and it appears when it is complete.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from gapless.core.errors import UsageError
from gapless.core.files import check_file, new_file
from gapless.core.results import Result
from gapless.search.collection import METADATA_KEY, OWN_FIELDS, PREVIEW, Collection
from gapless.search.engine import reading
from gapless.search.row_readers import BATCH_ROWS

VECTOR = "vector"
FORMAT = "gapless-collection-rows"


@dataclass(frozen=True)
class ExportedRows(Result):
    """What was written.

    Args:
        export: the file.
        rows: how many rows it holds.
        columns: the names of its columns, in order.
    """

    export: Path
    rows: int
    columns: list[str]


def export_collection(
    collection: str | Path, *, out: str | Path, where: str | None = None, vectors: bool = True
) -> ExportedRows:
    """Write the rows of a collection to a file, in the order in which the collection stores them.

    Columns: `row` (the key), `id, modality, caption, group, split, source, has_thumbnail`, the labels under the names
    that a filter takes, `preview` where the collection has it, and `vector`. Pictures are left out. Parquet holds a
    vector as a list of fp32 numbers, and names the model in the metadata `gapless`; CSV holds it as a JSON list whose
    numbers give the same fp32 numbers when they are read. A missing value is a null in Parquet, an empty cell in CSV.

    Args:
        collection: what `gapless.index` wrote.
        out: the file to write, .csv or .parquet; one that exists is replaced.
        where: only rows that this filter lets through, such as "modality = 'image' AND age > 60".
        vectors: False leaves the vectors out.

    Raises:
        UsageError: no collection, another suffix, an unknown field, a broken filter. DataRefused: a damaged collection.
    """
    path = Path(out)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UsageError(f"{path} is of no format for rows; name a file that ends in {' or '.join(WRITERS)}")
    check_file(path)
    opened = Collection.open(collection)
    condition = opened.condition(where=where)
    columns = exported_columns(opened, vectors)
    table = opened.table_version().table
    rows = 0
    with new_file(path) as stream, writer(stream, schema_of(opened, table.schema, columns)) as write:
        for batch in read_rows(opened, table, columns, condition.sql, where):
            write(batch)
            rows += len(batch)
    return ExportedRows(path, rows, list(columns))


def exported_columns(collection: Collection, vectors: bool) -> dict[str, str]:
    """Column of the file -> column of the table."""
    own = {name: name for name in ("row", *OWN_FIELDS)}
    further = [PREVIEW] if collection.has_previews else []
    further += [VECTOR] if vectors else []
    taken = {*own, PREVIEW, VECTOR}
    labels = {
        column if label.lower() in taken else label: column for label, column in collection.info["labels"].items()
    }
    return own | labels | {name: name for name in further}


def schema_of(collection: Collection, schema: pa.Schema, columns: Mapping[str, str]) -> pa.Schema:
    """The columns of the file with the types of the table; its metadata say which model the vectors are of."""
    about = {"format": FORMAT, "model": collection.info["model"], "modalities": collection.info["modalities"]}
    return pa.schema(
        [pa.field(name, schema.field(column).type) for name, column in columns.items()],
        metadata={METADATA_KEY: json.dumps(about, sort_keys=True).encode()},
    )


def read_rows(
    collection: Collection, table: Any, columns: Mapping[str, str], sql: str | None, where: str | None
) -> Iterator[pa.RecordBatch]:
    """The rows under the names of the file, some at a time; a failure of the engine becomes one sentence."""
    with reading(collection.uri, where):
        asked = table.search().select(list(columns.values()))
        batches = iter((asked if sql is None else asked.where(sql)).to_batches(batch_size=BATCH_ROWS))
    while True:
        with reading(collection.uri, where):
            batch = next(batches, None)
        if batch is None:
            return
        yield pa.RecordBatch.from_arrays([batch.column(column) for column in columns.values()], names=list(columns))


class _ParquetRows(AbstractContextManager[Callable[[pa.RecordBatch], None]]):
    """Writes batches as row groups of a Parquet file."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.schema = schema
        self.writer = pq.ParquetWriter(stream, schema, compression="zstd")

    def __enter__(self) -> Callable[[pa.RecordBatch], None]:
        return self.write

    def write(self, batch: pa.RecordBatch) -> None:
        self.writer.write_batch(batch.cast(self.schema))

    def __exit__(self, *error: object) -> None:
        self.writer.close()


class _CsvRows(AbstractContextManager[Callable[[pa.RecordBatch], None]]):
    """Writes batches as lines of a CSV file in UTF-8; a vector becomes a JSON list."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema) -> None:
        from pyarrow import csv

        self.schema = pa.schema([field.with_type(_csv_type(field)) for field in schema])
        self.writer = csv.CSVWriter(stream, self.schema)

    def __enter__(self) -> Callable[[pa.RecordBatch], None]:
        return self.write

    def write(self, batch: pa.RecordBatch) -> None:
        arrays = [
            json_lists(column) if name == VECTOR else column
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        self.writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))

    def __exit__(self, *error: object) -> None:
        self.writer.close()


def _csv_type(field: pa.Field) -> pa.DataType:
    return pa.string() if field.name == VECTOR else field.type


def json_lists(vectors: pa.Array) -> pa.Array:
    """Each vector as the text of a JSON list, in the fewest digits that give the same fp32 numbers."""
    numbers = vectors.cast(pa.list_(pa.float32())).cast(pa.list_(pa.string()))
    return pc.binary_join_element_wise("[", pc.binary_join(numbers, ", "), "]", "")


WRITERS: Mapping[str, Callable[[BinaryIO, pa.Schema], AbstractContextManager[Callable[[pa.RecordBatch], None]]]] = {
    ".csv": _CsvRows,
    ".parquet": _ParquetRows,
}
