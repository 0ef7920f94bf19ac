"""Records which rows were deleted from a collection, so that the next `gapless index` of the same data skips them.

A second table of the collection holds one row per deleted row: the digest of its key and the digest of its content. No
id, caption or group is in it, because people delete rows to be rid of them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gapless.search.collection import Collection, connect, key_of, table_names
from gapless.search.engine import reading
from gapless.search.lookup import values_at
from gapless.search.samples import Samples

DELETED_TABLE = "deleted"
SCHEMA = pa.schema([("key", pa.string()), ("content", pa.string())])
FORGOTTEN_AT_ONCE = 1000


def key_digest(row: str) -> str:
    """What stands for the key of a row."""
    return hashlib.sha256(row.encode()).hexdigest()


def deleted_rows(collection: Collection, samples: Samples) -> dict[str, str]:
    """Digest of the key -> digest of the content, of the samples' rows that were deleted and not restored."""
    with reading(collection.uri):
        table = opened(collection)
        if table is None:
            return {}
        keys = [key_digest(key_of(sample, name)) for sample in samples.ids for name in samples.contents]
        return values_at(table, "key", keys, "content")


def remember(collection: Collection, rows: Mapping[str, str]) -> None:
    """Note these rows as deleted, key -> content, before they are: an interrupted deletion then only notes too much,
    which does nothing, because a row that is there counts as there."""
    if not rows:
        return
    columns = {"key": [key_digest(row) for row in rows], "content": list(rows.values())}
    noted = pa.table(columns, schema=SCHEMA)
    with reading(collection.uri):
        table = opened(collection)
        if table is None:
            connect(collection.uri).create_table(DELETED_TABLE, data=noted, schema=SCHEMA, mode="create")
        else:
            table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(noted)


def forget(collection: Collection, rows: Sequence[str]) -> None:
    """Note these rows, by their keys, as restored."""
    with reading(collection.uri):
        table = opened(collection)
        for start in range(0, len(rows) if table is not None else 0, FORGOTTEN_AT_ONCE):
            listed = ", ".join(f"'{key_digest(row)}'" for row in rows[start : start + FORGOTTEN_AT_ONCE])
            table.delete(f"key IN ({listed})")


def opened(collection: Collection) -> Any:
    """The table of deleted rows, or None where nothing was ever deleted."""
    database = connect(collection.uri)
    return database.open_table(DELETED_TABLE) if DELETED_TABLE in table_names(database) else None
