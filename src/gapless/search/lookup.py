"""Looks up the rows of some keys in a table of a collection, at a cost that goes with the keys.

The engine finds each key by its index. Where the keys are a good part of the table one pass over it is quicker; what
stays in memory is the rows of the keys in either case.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gapless.search.filter_terms import literal

KEYS_AT_ONCE = 4096  # of a condition
PASS_SHARE = 0.03  # of a table's rows: of more keys, one pass should be quicker (an estimate)


def values_at(table: Any, column: str, keys: Sequence[str], value: str) -> dict[str, Any]:
    """Key -> the value of its row, for the keys that the table has.

    Args:
        table: a table of LanceDB.
        column: of the keys.
        value: the column of the values.
    """
    found: dict[str, Any] = {}
    for rows in _rows_of(table, column, keys, [column, value], None):
        found |= dict(zip(rows[column].to_pylist(), rows[value].to_pylist(), strict=True))
    return found


def keys_among(table: Any, keys: Sequence[str], where: str) -> set[str]:
    """Those of the keys of a collection's rows that are there and that a condition lets through."""
    return {key for rows in _rows_of(table, "row", keys, ["row"], where) for key in rows["row"].to_pylist()}


def numbers_at(table: Any, keys: Sequence[str]) -> dict[str, int]:
    """Key of a row -> the engine's number of it."""
    found: dict[str, int] = {}
    for rows in _rows_of(table, "row", keys, ["row"], None):
        found |= dict(zip(rows["row"].to_pylist(), rows["_rowid"].to_pylist(), strict=True))
    return found


def _rows_of(
    table: Any, column: str, keys: Sequence[str], columns: Sequence[str], where: str | None
) -> Iterator[pa.Table]:
    if len(keys) > PASS_SHARE * table.count_rows():
        yield from _by_a_pass(table, column, keys, columns, where)
        return
    for start in range(0, len(keys), KEYS_AT_ONCE):
        listed = ", ".join(map(literal, keys[start : start + KEYS_AT_ONCE]))
        condition = f"{column} IN ({listed})" + ("" if where is None else f" AND {where}")
        yield table.search().where(condition).select(list(columns)).with_row_id(True).to_arrow()


def _by_a_pass(
    table: Any, column: str, keys: Sequence[str], columns: Sequence[str], where: str | None
) -> Iterator[pa.Table]:
    asked = table.search().select(list(columns)).with_row_id(True)
    if where is not None:
        asked = asked.where(where)
    wanted = pa.array(keys, pa.string())
    for batch in asked.to_batches():
        rows = pa.Table.from_batches([batch])
        yield rows.filter(pc.is_in(rows[column], value_set=wanted))
