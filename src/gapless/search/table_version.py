"""One version of a collection's table, and exact search in it.

Exact means what brute force gives: every vector is scored. A pass in fp32 leaves the rows that could be among the
best, whatever its rounding did; those are scored again in float64, rounded to fp32, and ordered by score, then by key.
So equal vectors tie wherever they lie in memory, and ties come in one order.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from gapless.core.errors import UsageError
from gapless.core.memory import memory_limit
from gapless.search.filter_terms import literal
from gapless.search.kinds import Kind, kind_of_batches
from gapless.search.row_readers import HeldRows, ReadRows, Rows

MEMORY_BYTES = 4 << 30  # rows up to this size are held in memory; of larger collections nothing is
HELD_BYTES = 160  # of a held row besides its vector: key, modality, number and rank
ROWS_AT_ONCE = 65_536
BATCH_ROWS = 4096
FLOAT32_ROUNDING = 2.0**-24
NEARLY_COPIES = 1e-4
MAX_KEPT_COUNTS = 256


class Lift(Protocol):
    """What makes scores for the ranking of cosines; inside a modality it changes them by a factor and a summand.

    Args of a call:
        rows: whose scores these are.
        cosines: [row].
        final: whether the cosines are the exact ones; copies of the query may be raised further then.

    Returns:
        [row] of the cosines' precision.
    """

    steepest: float  # the largest factor

    def __call__(self, rows: Rows, cosines: np.ndarray, *, final: bool) -> np.ndarray: ...


class TableVersion:
    """The rows of one version. A row is named by its place, a number that only this object understands.

    Args:
        table: a LanceDB table that is checked out at the version.
        dim: size of a vector.
        modalities: of the collection.
        memory_bytes: rows up to this size are held in memory; None holds them whatever their size.
    """

    def __init__(
        self, table: Any, dim: int, modalities: Sequence[str], memory_bytes: int | None = MEMORY_BYTES
    ) -> None:
        self.table = table
        self.number = int(table.version)
        self.dim = dim
        self.modalities = list(modalities)
        self.memory_bytes = memory_bytes
        self._kinds: dict[str, Kind] = {}
        self._counts: dict[str, int] = {}

    @cached_property
    def has_index(self) -> bool:
        """Whether an approximate index of the vectors is there."""
        return any("vector" in index.columns for index in self.table.list_indices())

    @cached_property
    def columns(self) -> list[str]:
        """The names of the table's columns."""
        return list(self.table.schema.names)

    @cached_property
    def is_held(self) -> bool:
        """Whether the rows are in memory, or will be when they are first asked for."""
        return self.memory_bytes is None or self.held_bytes <= self.memory_bytes

    @property
    def held_bytes(self) -> int:
        """What holding the rows in memory takes."""
        return len(self) * (4 * self.dim + HELD_BYTES)

    def check_memory(self, uri: str) -> None:
        """Refuse to hold rows that are larger than the memory of this computer, or of the container.

        Raises:
            UsageError: they are.
        """
        there = memory_limit()
        if there is not None and self.held_bytes > there:
            raise UsageError(
                f"{uri} takes {self.held_bytes / 1e9:,.1f} GB in memory and this computer has {there / 1e9:,.1f}; "
                "leave --in_memory out, or index with --ann ivf-flat"
            )

    @cached_property
    def _size(self) -> int:
        return int(self.table.count_rows())

    def __len__(self) -> int:
        return self._size

    @cached_property
    def reader(self) -> HeldRows | ReadRows:
        """Where keys, modalities and vectors come from."""
        kind = HeldRows if self.is_held else ReadRows
        return kind(self.table, self.dim, self.modalities)

    def place_of(self, row: str) -> int | None:
        place = int(self.reader.at_keys([row])[0])
        return None if place < 0 else place

    def ranks(self, places: np.ndarray) -> np.ndarray:
        """Numbers that stand in the order of the keys of these rows."""
        return self.reader.key_order(places)

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """[place, dim] fp32."""
        return self.reader.vectors(places)

    def fetch(self, places: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Columns of these rows, in this order."""
        return self.reader.fetch(places, columns)

    def rows_at(self, places: np.ndarray) -> Rows:
        """These rows with their vectors and modalities."""
        return Rows(places, self.reader.vectors(places), self.reader.modalities(places))

    def counts(self) -> dict[str, int]:
        """Modality -> how many rows it has."""
        return {name: self.count(self.of_modality(name)) for name in self.modalities}

    def count(self, where: str) -> int:
        """How many rows a prepared filter lets through."""
        count = self._counts.get(where)  # once: another thread may clear the counts
        if count is None:
            count = int(self.table.count_rows(where))
            if len(self._counts) >= MAX_KEPT_COUNTS:
                self._counts.clear()
            self._counts[where] = count
        return count

    @staticmethod
    def of_modality(name: str) -> str:
        """The prepared filter of one modality."""
        return f"modality = {literal(name)}"

    def batches(self) -> Iterator[Rows]:
        """All rows, some at a time."""
        for rows in self.reader.passes(None):
            for start in range(0, len(rows.places), BATCH_ROWS):
                part = slice(start, start + BATCH_ROWS)
                yield Rows(rows.places[part], rows.vectors[part], rows.modalities[part])

    def kind(self, column: str) -> Kind:
        """What a column of labels holds in this version: numbers, when every value of it is one."""
        if column not in self._kinds:  # one pass; the first word of a label of text ends it
            batches = self.table.search().select([column]).to_batches()
            self._kinds[column] = kind_of_batches(batch.column(column) for batch in batches)
        return self._kinds[column]

    def know_kinds(self, kinds: Mapping[str, Kind]) -> None:
        """Take what columns hold in this version from where it is kept."""
        self._kinds = {**kinds, **self._kinds}

    def exact(
        self, query: np.ndarray, k: int, where: str | None = None, lift: Lift | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places and cosines of the k best rows, best first, ties in the order of the keys.

        Args:
            query: [dim], unit norm.
            where: a prepared filter.
            lift: makes of the cosines what is ranked; by default the cosines are.
        """
        query = np.asarray(query, dtype=np.float32)
        kept = Candidates(k, self.dim, lift)
        for rows in self.reader.passes(where):
            kept.add(rows, rows.vectors @ query)
            if len(kept.places) > max(4 * k, ROWS_AT_ONCE):  # so many ties: their exact order is settled now
                kept.keep(self.order(kept.places, query, k, lift)[0])
        return self.order(kept.places, query, k, lift)

    def order(
        self, places: np.ndarray, query: np.ndarray, k: int, lift: Lift | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best of these rows by their exact scores, and their cosines."""
        scores: list[np.ndarray] = [np.empty(0, dtype=np.float32)]
        ranked: list[np.ndarray] = [np.empty(0)]
        for start in range(0, len(places), ROWS_AT_ONCE):
            some = places[start : start + ROWS_AT_ONCE]
            rows = self.rows_at(some) if lift is not None else Rows(some, self.vectors(some), np.empty(0, np.int8))
            scores.append(exact_scores(rows.vectors, query))
            lifted = scores[-1] if lift is None else lift(rows, scores[-1].astype(np.float64), final=True)
            ranked.append(lifted)
        cosines = np.concatenate(scores)
        best = np.lexsort((self.ranks(places), -np.concatenate(ranked)))[:k]
        return places[best], cosines[best]

    def kth_scores(self, queries: np.ndarray, own: np.ndarray, k: int, modality: str | None = None) -> np.ndarray:
        """[query] the k-th highest cosine with the rows, in one pass; of fewer rows the lowest.

        Args:
            queries: [query, dim].
            own: [query] places that are left out.
            modality: only its rows.
        """
        best = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for rows in self.batches():
            scores = queries @ rows.vectors.T
            scores[own[:, None] == rows.places[None]] = -np.inf
            if modality is not None:
                scores[:, rows.modalities != self.modalities.index(modality)] = -np.inf
            merged = np.concatenate([best, scores], axis=1)
            best = -np.partition(-merged, k - 1, axis=1)[:, :k]
        lowest: np.ndarray = np.where(np.isfinite(best), best, np.inf).min(axis=1)
        return lowest


class Candidates:
    """The rows that could still be among the k best, given scores in fp32 of any order of summation.

    Args:
        k: how many are wanted.
        dim: of the vectors, which bounds the rounding.
        lift: as of `TableVersion.exact`.
    """

    def __init__(self, k: int, dim: int, lift: Lift | None) -> None:
        self.k = k
        self.lift = lift
        # Unit-norm rows: either score of a pair is off by at most dim roundings, and the final rounding adds one.
        self._tolerance = 2 * (dim + 1) * FLOAT32_ROUNDING * (1.0 if lift is None else lift.steepest)
        self._largest = 0.0
        self.places = np.empty(0, dtype=np.int64)
        self._scores = np.empty(0, dtype=np.float32)
        self._copies = np.empty(0, dtype=bool)

    def add(self, rows: Rows, cosines: np.ndarray) -> None:
        """Consider these rows too.

        Args:
            cosines: [row] fp32; changed where a filter leaves rows out.
        """
        scores = cosines if self.lift is None else self.lift(rows, cosines, final=False)
        # A factor widens the roundings of a cosine, and the arithmetic of the lift adds a few of its own.
        slack = 0.0
        if self.lift is not None:
            self._largest = max(self._largest, float(np.abs(scores).max(initial=0.0)))
            slack = 16 * FLOAT32_ROUNDING * (self._largest + self.lift.steepest)
        is_copy = None if self.lift is None else cosines > 1 - NEARLY_COPIES  # a lift may put copies first
        if rows.allowed is not None:
            scores[~rows.allowed] = -np.inf
        found = np.flatnonzero(self._near(scores, is_copy, slack))
        copies = np.zeros(len(found), dtype=bool) if is_copy is None else is_copy[found]
        if not len(self.places):
            self.places, self._scores, self._copies = rows.places[found], scores[found], copies
            return
        self.places = np.concatenate([self.places, rows.places[found]])
        self._scores = np.concatenate([self._scores, scores[found]])
        self._copies = np.concatenate([self._copies, copies])
        self._take(self._near(self._scores, self._copies, slack))

    def keep(self, places: np.ndarray) -> None:
        """Keep only these of the rows."""
        self._take(np.isin(self.places, places))

    def _near(self, scores: np.ndarray, is_copy: np.ndarray | None, slack: float) -> np.ndarray:
        """[row] bool, which may be among the k best of these."""
        is_finite = np.isfinite(scores)
        k = min(self.k, int(is_finite.sum()))
        if k == 0:
            return np.zeros(len(scores), dtype=bool)
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        is_near: np.ndarray = scores >= kth - self._tolerance - slack
        return is_near if is_copy is None else is_near | (is_copy & is_finite)

    def _take(self, chosen: np.ndarray) -> None:
        self.places, self._scores, self._copies = self.places[chosen], self._scores[chosen], self._copies[chosen]


def exact_scores(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """[row] dot products summed in float64 and rounded to fp32: equal rows score equal, wherever they stand."""
    products = vectors.astype(np.float64) * np.asarray(query, dtype=np.float32).astype(np.float64)
    return np.asarray(products.sum(axis=1), dtype=np.float32)
