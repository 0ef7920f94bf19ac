"""One version of a collection's table, and exact search in it.

Exact means what brute force gives: every vector is scored. A pass in fp32 leaves the rows that could be among the
best, whatever its rounding did; those are scored again in float64, rounded to fp32, and ordered by score, then by key.
So equal vectors tie wherever they lie in memory, and ties come in one order.
"""

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gapless.core.errors import DataRefused
from gapless.search.kinds import Kind, kind_of

MEMORY_BYTES = 4 << 30  # vectors up to this size are held in memory; larger ones are read at each exact search
ROWS_AT_ONCE = 65_536
BATCH_ROWS = 4096
NORM_TOLERANCE = 1e-3
FLOAT32_ROUNDING = 2.0**-24
MAX_KEPT_FILTERS = 16
NEARLY_COPIES = 1e-4


class Lift(Protocol):
    """What makes scores for the ranking of cosines; inside a modality it changes them by a factor and a summand.

    Copies of the query may be raised further where places are named.

    Args of a call:
        places: [row]; None for all rows of the collection.
        cosines: [row].

    Returns:
        [row] of the cosines' precision.
    """

    steepest: float  # the largest factor

    def __call__(self, places: np.ndarray | None, cosines: np.ndarray) -> np.ndarray: ...


class TableVersion:
    """The rows of one version. A row is named by its place, 0 to n - 1.

    Args:
        table: a LanceDB table that is checked out at the version.
        dim: size of a vector.
        memory_bytes: at most so many bytes of vectors are held.
    """

    def __init__(self, table: Any, dim: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self.table = table
        self.number = int(table.version)
        self.dim = dim
        self.memory_bytes = memory_bytes
        self._allowed: dict[str, np.ndarray] = {}
        self._kinds: dict[str, Kind] = {}
        self._lock = threading.Lock()
        self._vectors: np.ndarray | None = None
        self._codes: dict[tuple[str, ...], np.ndarray] = {}

    @cached_property
    def has_index(self) -> bool:
        """Whether an approximate index of the vectors is there."""
        return any("vector" in index.columns for index in self.table.list_indices())

    @cached_property
    def _keys(self) -> pa.Table:
        keys: pa.Table = self.table.search().select(["row"]).with_row_id(True).to_arrow()
        return keys

    @property
    def rows(self) -> pa.ChunkedArray:
        """The keys, by place."""
        return self._keys["row"]

    @cached_property
    def row_ids(self) -> np.ndarray:
        """The engine's numbers of the rows, by place."""
        return np.asarray(self._keys["_rowid"].to_numpy())

    def modality_codes(self, modalities: Sequence[str]) -> np.ndarray:
        """[row] int8, the number of each row's modality in this list; -1 where it is not in it."""
        wanted = tuple(modalities)
        if wanted not in self._codes:
            table = self.table.search().select(["modality"]).with_row_id(True).to_arrow()
            codes = np.empty(len(self), dtype=np.int8)
            found = pc.index_in(table["modality"], value_set=pa.array(wanted, pa.string()))
            codes[self.places_of(table["_rowid"].to_numpy())] = pc.fill_null(found, -1).to_numpy()
            self._codes[wanted] = codes
        return self._codes[wanted]

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.row_ids)
        return self.row_ids[order], order

    @cached_property
    def _rank(self) -> np.ndarray:
        """Where each row stands in the order of the keys."""
        rank = np.empty(len(self), dtype=np.int64)
        rank[pc.sort_indices(self.rows).to_numpy()] = np.arange(len(self))
        return rank

    def ranks(self, places: np.ndarray) -> np.ndarray:
        """Where these rows stand in the order of the keys."""
        return np.asarray(self._rank[places])

    @property
    def _matrix(self) -> np.ndarray | None:
        """[row, dim] fp32, or None where that takes more memory than allowed."""
        if len(self) * self.dim * 4 > self.memory_bytes:
            return None
        with self._lock:  # threads that come together wait for one reading
            if self._vectors is None:
                vectors = np.empty((len(self), self.dim), dtype=np.float32)
                for places, some in self._stream():
                    vectors[places] = some
                self._vectors = vectors
        return self._vectors

    def __len__(self) -> int:
        return int(self._keys.num_rows)

    def place_of(self, row: str) -> int | None:
        place = pc.index(self.rows, row).as_py()
        return None if place < 0 else place

    def places_of(self, row_ids: np.ndarray) -> np.ndarray:
        in_order, order = self._places
        return np.asarray(order[np.searchsorted(in_order, row_ids)])

    def _stream(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        query = self.table.search().select(["vector"]).with_row_id(True)
        for batch in query.to_batches():
            vectors = batch.column("vector").flatten().to_numpy().reshape(-1, self.dim)
            check_unit_norm(vectors)
            yield self.places_of(batch.column("_rowid").to_numpy()), vectors

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows, some at a time: their places and [row, dim] fp32 vectors."""
        matrix = self._matrix
        if matrix is None:
            yield from self._stream()
            return
        for start in range(0, len(matrix), BATCH_ROWS):
            places = np.arange(start, min(start + BATCH_ROWS, len(matrix)))
            yield places, matrix[places[0] : places[-1] + 1]

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """[place, dim] fp32."""
        matrix = self._matrix
        if matrix is not None:
            return np.asarray(matrix[places])
        table = self.fetch(places, ["vector"])
        return np.asarray(table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.dim))

    def fetch(self, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Columns of these rows, in this order."""
        row_ids = self.row_ids[places]
        found = self.table.take_row_ids(row_ids.tolist()).select(list(columns)).with_row_id().to_arrow()
        held = found["_rowid"].to_numpy()
        order = np.argsort(held)
        return found.take(order[np.searchsorted(held[order], row_ids)]).drop_columns(["_rowid"])

    def kind(self, column: str) -> Kind:
        """What a column of labels holds in this version: numbers, when every value of it is one."""
        if column not in self._kinds:
            self._kinds[column] = kind_of(self.table.search().select([column]).to_arrow()[column])
        return self._kinds[column]

    def allowed(self, where: str) -> np.ndarray:
        """[row] bool: which rows a prepared filter lets through."""
        if where not in self._allowed:
            found = self.table.search().where(where).select(["_rowid"]).with_row_id(True).to_arrow()
            mask = np.zeros(len(self), dtype=bool)
            mask[self.places_of(found["_rowid"].to_numpy())] = True
            if len(self._allowed) >= MAX_KEPT_FILTERS:
                self._allowed.clear()
            self._allowed[where] = mask
        return self._allowed[where]

    def exact(
        self, query: np.ndarray, k: int, where: str | None = None, lift: Lift | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places and cosines of the k best rows, best first, ties in the order of the keys.

        Args:
            query: [dim], unit norm.
            where: a prepared filter.
            lift: makes of the cosines what is ranked; by default the cosines are.
        """
        scores = cosines = self._approximate_scores(query)
        steepest, slack = 1.0, 0.0
        if lift is not None:
            scores = lift(None, cosines)
            # A factor widens the roundings of a cosine, and the arithmetic of the lift adds a few of its own.
            steepest = lift.steepest
            slack = 16 * FLOAT32_ROUNDING * (float(np.abs(scores).max(initial=0.0)) + steepest)
        if where is not None:
            scores[~self.allowed(where)] = -np.inf
        k = min(k, int(np.isfinite(scores).sum()))
        if k == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        # Unit-norm rows: either score of a pair is off by at most dim roundings, and the final rounding adds one.
        is_near = scores >= kth - 2 * (self.dim + 1) * FLOAT32_ROUNDING * steepest - slack
        if lift is not None:
            is_near |= (cosines > 1 - NEARLY_COPIES) & np.isfinite(scores)  # a lift may put copies of the query first
        candidates = np.flatnonzero(is_near)
        return self.order(candidates, query, k, lift)

    def order(
        self, places: np.ndarray, query: np.ndarray, k: int, lift: Lift | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best of these rows by their exact scores, and their cosines."""
        parts = [
            exact_scores(self.vectors(places[start : start + ROWS_AT_ONCE]), query)
            for start in range(0, len(places), ROWS_AT_ONCE)
        ]
        scores = np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)
        ranked = scores if lift is None else lift(places, scores.astype(np.float64))
        best = np.lexsort((self.ranks(places), -ranked))[:k]
        return places[best], scores[best]

    def _approximate_scores(self, query: np.ndarray) -> np.ndarray:
        query = np.asarray(query, dtype=np.float32)
        matrix = self._matrix
        if matrix is not None:
            return np.asarray(matrix @ query)
        scores = np.empty(len(self), dtype=np.float32)
        for places, vectors in self._stream():
            scores[places] = vectors @ query
        return scores


def exact_scores(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """[row] dot products summed in float64 and rounded to fp32: equal rows score equal, wherever they stand."""
    products = vectors.astype(np.float64) * np.asarray(query, dtype=np.float32).astype(np.float64)
    return np.asarray(products.sum(axis=1), dtype=np.float32)


def check_unit_norm(vectors: np.ndarray) -> None:
    """Refuse vectors that no model of ours gives: the file was damaged or written by something else."""
    squares = np.einsum("rd,rd->r", vectors, vectors)
    bad = int((~(np.abs(squares - 1) < 2 * NORM_TOLERANCE)).sum())
    if bad:
        raise DataRefused(f"{bad} vectors are not of unit norm; they were damaged, or made by something else")
