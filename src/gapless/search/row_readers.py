"""How a version of a collection's table reads its rows: held in memory, or from the engine at each question.

Both name a row by its place. Held rows have the places 0 to n - 1, and arrays that are indexed by them. Read rows have
the engine's own numbers as places, and nothing here grows with the table: keys, modalities and vectors are fetched for
the rows that are asked for.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gapless.core.errors import DataRefused
from gapless.search.filter_terms import literal
from gapless.search.lookup import numbers_at

BATCH_ROWS = 8192  # of the engine's batches: larger ones do not fit the caches of a core, smaller ones cost calls
NORM_TOLERANCE = 1e-3
MAX_KEPT_FILTERS = 16
# What every hit shows and costs little to hold: to take ten flags of 1,000,000 rows the engine needs 5 ms, for each of
# the other columns less than one.
HELD_COLUMNS = ("row", "modality", "has_thumbnail")
GATHERED_SHARE = 0.25  # of the rows that pass a filter; up to it they are copied out, above it all rows are scored
GATHERED_ROWS = 2048  # copied at once; a copied row costs 0.5 to 0.7 us, a row of the whole product 0.25 us (512-d)


@dataclass(frozen=True)
class Rows:
    """Some rows of a version.

    Args:
        places: [row].
        vectors: [row, dim] fp32.
        modalities: [row] int8, numbers in the collection's list of modalities; -1 for one that is not in it.
        allowed: [row] bool, which of them a filter lets through; None for all.
        is_whole: whether these are all rows of the version.
    """

    places: np.ndarray
    vectors: np.ndarray
    modalities: np.ndarray
    allowed: np.ndarray | None = None
    is_whole: bool = False


class HeldRows:
    """Keys, modalities, vectors and whether a row has a thumbnail in memory.

    Args:
        table: a LanceDB table that is checked out at a version.
    """

    def __init__(self, table: Any, dim: int, modality_names: Sequence[str]) -> None:
        self.table = table
        self.dim = dim
        self.modality_names = list(modality_names)
        self._lock = threading.Lock()
        self._allowed: dict[str, np.ndarray] = {}
        self._vectors: np.ndarray | None = None

    @cached_property
    def _table(self) -> pa.Table:
        rows: pa.Table = self.table.search().select(list(HELD_COLUMNS)).with_row_id(True).to_arrow()
        return rows.combine_chunks()

    @property
    def all_keys(self) -> pa.ChunkedArray:
        """The keys by place."""
        return self._table["row"]

    @cached_property
    def _ids(self) -> np.ndarray:
        return np.asarray(self._table["_rowid"].to_numpy())

    @cached_property
    def _in_order(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._ids)
        return self._ids[order], order

    @cached_property
    def _codes(self) -> np.ndarray:
        return modality_codes(self._table["modality"], self.modality_names)

    @cached_property
    def _ranks(self) -> np.ndarray:
        """Where each row stands in the order of the keys."""
        rank = np.empty(len(self._ids), dtype=np.int64)
        rank[pc.sort_indices(self._table["row"]).to_numpy()] = np.arange(len(rank))
        return rank

    @property
    def matrix(self) -> np.ndarray:
        """[row, dim] fp32 by place."""
        with self._lock:  # threads that come together wait for one reading
            if self._vectors is None:
                vectors = np.empty((len(self._ids), self.dim), dtype=np.float32)
                for rows in read_batches(self.table, self.dim, self.modality_names, None):
                    vectors[self.at_ids(rows.places)] = rows.vectors
                self._vectors = vectors
        return self._vectors

    def at_keys(self, keys: Sequence[str | None]) -> np.ndarray:
        """[key] places; -1 where there is none."""
        if len(keys) == 1:  # a look through all is quicker than a table of them
            return np.array([pc.index(self._table["row"], keys[0]).as_py()])
        found = pc.index_in(pa.array(keys, pa.string()), self._table["row"].combine_chunks())
        return np.asarray(found.fill_null(-1)).astype(np.int64)

    def at_ids(self, row_ids: np.ndarray) -> np.ndarray:
        """[row] places of rows by the engine's numbers."""
        in_order, order = self._in_order
        return np.asarray(order[np.searchsorted(in_order, row_ids)])

    def ids(self, places: np.ndarray) -> np.ndarray:
        """[row] the engine's numbers."""
        return np.asarray(self._ids[places])

    def keys(self, places: np.ndarray) -> pa.Array:
        """[row] keys."""
        return self._table["row"].take(pa.array(places)).combine_chunks()

    def key_order(self, places: np.ndarray) -> np.ndarray:
        """[row] numbers that stand in the order of the keys of these rows."""
        return np.asarray(self._ranks[places])

    def modalities(self, places: np.ndarray) -> np.ndarray:
        """[row] int8 numbers of modalities."""
        return np.asarray(self._codes[places])

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """[row, dim] fp32."""
        return np.asarray(self.matrix[places])

    def fetch(self, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Columns of these rows, in this order; those that are held are not asked of the engine."""
        held = self._table.select([name for name in columns if name in HELD_COLUMNS]).take(pa.array(places))
        others = [name for name in columns if name not in HELD_COLUMNS]
        read = fetched(self.table, self.ids(places), others) if others else held
        return pa.table({name: (held if name in HELD_COLUMNS else read)[name] for name in columns})

    def passes(self, where: str | None) -> Iterator[Rows]:
        """All rows that a prepared filter lets through or, where it says so, marks; for one query."""
        matrix = self.matrix
        allowed = None if where is None else self._allowed_by(where)
        if allowed is None or allowed.sum() > GATHERED_SHARE * len(matrix):
            yield Rows(np.arange(len(matrix)), matrix, self._codes, allowed, is_whole=True)
            return
        places = np.flatnonzero(allowed)
        for start in range(0, len(places), GATHERED_ROWS):
            part = places[start : start + GATHERED_ROWS]
            yield Rows(part, matrix[part], self._codes[part])

    def drawn(self, count: int, seed: int, modality: str | None) -> np.ndarray:
        """Places of rows drawn without replacement, of one modality or of all, in the order of the draw."""
        places = np.arange(len(self._ids))
        if modality is not None:
            places = np.flatnonzero(self._codes == self.modality_names.index(modality))
            places = places[np.argsort(self._ranks[places])]
        return np.asarray(places[np.random.default_rng(seed).permutation(len(places))[:count]])

    def _allowed_by(self, where: str) -> np.ndarray:
        """[row] bool: which rows a prepared filter lets through."""
        mask = self._allowed.get(where)  # once: another thread may clear the filters
        if mask is None:
            found = self.table.search().where(where).select(["_rowid"]).with_row_id(True).to_arrow()
            mask = np.zeros(len(self._ids), dtype=bool)
            mask[self.at_ids(found["_rowid"].to_numpy())] = True
            if len(self._allowed) >= MAX_KEPT_FILTERS:
                self._allowed.clear()
            self._allowed[where] = mask
        return mask


class ReadRows:
    """Everything is read from the engine when it is asked for; arguments as of `HeldRows`."""

    def __init__(self, table: Any, dim: int, modality_names: Sequence[str]) -> None:
        self.table = table
        self.dim = dim
        self.modality_names = list(modality_names)

    def at_keys(self, keys: Sequence[str | None]) -> np.ndarray:
        """[key] places; -1 where there is none."""
        found = numbers_at(self.table, [key for key in keys if key is not None])
        return np.array([-1 if key is None else found.get(key, -1) for key in keys], dtype=np.int64)

    def at_ids(self, row_ids: np.ndarray) -> np.ndarray:
        """[row] places of rows by the engine's numbers."""
        return row_ids.astype(np.int64)

    def ids(self, places: np.ndarray) -> np.ndarray:
        """[row] the engine's numbers."""
        return places.astype(np.uint64)

    def keys(self, places: np.ndarray) -> pa.Array:
        """[row] keys."""
        return fetched(self.table, self.ids(places), ["row"])["row"].combine_chunks()

    def key_order(self, places: np.ndarray) -> np.ndarray:
        """[row] numbers that stand in the order of the keys of these rows."""
        rank = np.empty(len(places), dtype=np.int64)
        if len(places):
            rank[pc.sort_indices(self.keys(places)).to_numpy()] = np.arange(len(places))
        return rank

    def modalities(self, places: np.ndarray) -> np.ndarray:
        """[row] int8 numbers of modalities."""
        if not len(places):
            return np.empty(0, dtype=np.int8)
        return modality_codes(fetched(self.table, self.ids(places), ["modality"])["modality"], self.modality_names)

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """[row, dim] fp32."""
        if not len(places):
            return np.empty((0, self.dim), dtype=np.float32)
        column = fetched(self.table, self.ids(places), ["vector"])["vector"].combine_chunks()
        return np.asarray(column.flatten().to_numpy().reshape(-1, self.dim))

    def fetch(self, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Columns of these rows, in this order."""
        return fetched(self.table, self.ids(places), columns)

    def passes(self, where: str | None) -> Iterator[Rows]:
        """All rows that a prepared filter lets through or, where it says so, marks; for one query."""
        return read_batches(self.table, self.dim, self.modality_names, where)

    def drawn(self, count: int, seed: int, modality: str | None) -> np.ndarray:
        """One pass over the keys: those with the `count` smallest hashes, whatever order the rows are stored in."""
        asked = self.table.search().select(["row"]).with_row_id(True)
        if modality is not None:
            asked = asked.where(f"modality = {literal(modality)}")
        kept, hashes = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        for batch in asked.to_batches(batch_size=BATCH_ROWS):
            kept = np.concatenate([kept, batch.column("_rowid").to_numpy().astype(np.int64)])
            hashes = np.concatenate([hashes, hashes_of(batch.column("row").to_pylist(), seed)])
            smallest = np.argsort(hashes, kind="stable")[:count]
            kept, hashes = kept[smallest], hashes[smallest]
        return kept


def read_batches(table: Any, dim: int, modality_names: Sequence[str], where: str | None) -> Iterator[Rows]:
    """The rows of a table as the engine reads them; the places are its own numbers.

    Raises:
        DataRefused: vectors that no model of ours gives.
    """
    asked = table.search().select(["vector", "modality"]).with_row_id(True)
    if where is not None:
        asked = asked.where(where)
    for batch in asked.to_batches(batch_size=BATCH_ROWS):
        vectors = batch.column("vector").flatten().to_numpy().reshape(-1, dim)
        check_unit_norm(vectors)
        places = batch.column("_rowid").to_numpy().astype(np.int64)
        yield Rows(places, vectors, modality_codes(batch.column("modality"), modality_names))


def fetched(table: Any, row_ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
    """Columns of the rows with these numbers of the engine, in this order."""
    found = table.take_row_ids(row_ids.tolist()).select(list(columns)).with_row_id().to_arrow()
    held = found["_rowid"].to_numpy()
    order = np.argsort(held)
    return found.take(order[np.searchsorted(held[order], row_ids)]).drop_columns(["_rowid"])


def hashes_of(texts: Sequence[str], seed: int) -> np.ndarray:
    """[text] uint64 that look random and are the same in every process."""
    salt = seed.to_bytes(8, "little")
    digests = b"".join(blake2b(text.encode(), digest_size=8, salt=salt).digest() for text in texts)
    return np.frombuffer(digests, dtype=np.uint64)


def modality_codes(values: pa.Array | pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    """[row] int8, the number of each row's modality in this list; -1 where it is not in it."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    found = pc.fill_null(pc.index_in(whole, value_set=pa.array(names, pa.string())), -1)
    return np.asarray(found.to_numpy(), dtype=np.int8)


def check_unit_norm(vectors: np.ndarray) -> None:
    """Refuse vectors that no model of ours gives: the file was damaged or written by something else."""
    squares = np.einsum("rd,rd->r", vectors, vectors)
    bad = int((~(np.abs(squares - 1) < 2 * NORM_TOLERANCE)).sum())
    if bad:
        raise DataRefused(f"{bad} vectors are not of unit norm; they were damaged, or made by something else")
