"""Finds sets of nearly equal hashes among millions of images without listing every pair.

The sets are the connected components of the graph that joins two hashes which differ in at most `max_bits` bits. They
are exactly those of a comparison of all pairs; a test compares the two. The steps:

1. Equal hashes are one.
2. A large cluster is found as a whole by a search from one of its hashes, so that its pairs are never listed.
3. The remaining hashes are looked up in hash tables of faiss (multi-index hashing): the bits are divided among more
   than `max_bits / 2` tables, so that of two near hashes at least one table holds parts that differ in at most one bit.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import missing_extra

HASH_BITS = 256
# Measured on 700 MedPix images: copies at JPEG quality 40, at 1/4 to 1.7 times the size or brightened differ in at most
# 20 of the 256 bits, two different images in at least 41.
MAX_BITS = 24
# 2^20 buckets suffice for millions of rows; longer keys would only mean more buckets to look into.
MAX_KEY_BITS = 20
MAX_SEEDS = 1000
ROWS_PER_SEED = 64
LARGE_CLUSTER = 32
# Seeds are drawn again while they take out at least this share of what is left.
WORTHWHILE_SHARE = 0.05
# Long runs of queries keep faiss's threads busy; they are shorter where each has many answers, to bound memory.
QUERIES_AT_ONCE = (4096, 65536)
MAX_ANSWERS = 4_000_000

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]


def near_sets(hashes: Words, max_bits: int = MAX_BITS) -> Rows:
    """The set of each hash: two hashes are in one set when a chain of steps of at most `max_bits` bits joins them.

    Args:
        hashes: [row, 4] words of 64 bits.
        max_bits: how many of the 256 bits may differ, from 0.

    Returns:
        [row] numbers of sets, from 0; a hash without a near one is alone in its set. Time grows slower than the square
        of the rows, memory as the rows (below 1 GB for a million), whatever the hashes are.
    """
    different, inverse = np.unique(hashes, axis=0, return_inverse=True)
    sets = _Sets(len(different))
    remaining = _join_large_clusters(different, max_bits, sets)
    _join_by_tables(different[remaining], remaining, max_bits, sets)
    return sets.labels()[inverse.ravel()]


class _Sets:
    """Sets that grow by joining; joins are collected and settled together, so that memory stays bounded."""

    def __init__(self, count: int) -> None:
        self._labels = np.arange(count)
        self._pending: list[tuple[Rows, Rows]] = []
        self._num_pending = 0

    def join(self, left: Rows, right: Rows) -> None:
        a, b = self._labels[left], self._labels[right]
        apart = a != b
        self._pending.append((a[apart], b[apart]))
        self._num_pending += int(apart.sum())
        if self._num_pending > MAX_ANSWERS:
            self._settle()

    def labels(self) -> Rows:
        self._settle()
        return self._labels

    def _settle(self) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self._num_pending:
            a, b = (np.concatenate(side) for side in zip(*self._pending, strict=True))
            size = len(self._labels)
            edges = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(size, size))
            self._labels = connected_components(edges, directed=False)[1].astype(np.int64)[self._labels]
        self._pending, self._num_pending = [], 0


# ---- large clusters -------------------------------------------------------------------------------------------------


def _join_large_clusters(hashes: Words, max_bits: int, sets: _Sets) -> Rows:
    """Join each large cluster that contains a randomly drawn hash; returns the rows that are in none.

    The draw affects only the time: clusters that it misses are found by the tables.
    """
    remaining = np.arange(len(hashes))
    rng = np.random.default_rng(0)
    while len(remaining) >= ROWS_PER_SEED:
        before = len(remaining)
        num_seeds = min(MAX_SEEDS, before // ROWS_PER_SEED)
        seeds = remaining[np.sort(rng.choice(before, num_seeds, replace=False))]
        nearest, bits = _nearest(hashes[remaining], hashes[seeds])
        followers = np.bincount(nearest[bits <= max_bits], minlength=num_seeds)
        for seed in seeds[followers >= LARGE_CLUSTER]:
            if remaining[np.searchsorted(remaining, seed) % len(remaining)] == seed:
                inside = _cluster(hashes[remaining], hashes[seed], max_bits)
                sets.join(remaining[inside], np.full(int(inside.sum()), seed))
                remaining = remaining[~inside]
                if not len(remaining):
                    break
        if before - len(remaining) < WORTHWHILE_SHARE * before:
            break
    return remaining


def _cluster(hashes: Words, seed: NDArray[np.uint64], max_bits: int) -> NDArray[np.bool_]:
    """Which rows are in the cluster of the seed: rows near to it, rows near to those, and so on.

    A row can only be near to one of the newest members when its distance from the seed is within `max_bits` of theirs
    (the triangle inequality), so that for a tight cluster few other rows are compared.
    """
    from_seed = np.bitwise_count(hashes ^ seed).sum(axis=1, dtype=np.int64)
    inside: NDArray[np.bool_] = from_seed <= max_bits
    newest = np.flatnonzero(inside)
    while len(newest):
        lowest, highest = from_seed[newest].min() - max_bits, from_seed[newest].max() + max_bits
        candidates = np.flatnonzero(~inside & (from_seed >= lowest) & (from_seed <= highest))
        _, bits = _nearest(hashes[candidates], hashes[newest])
        newest = candidates[bits <= max_bits]
        inside[newest] = True
    return inside


def _nearest(queries: Words, among: Words) -> tuple[Rows, Rows]:
    """For each query the nearest of the others, and the bits in which the two differ."""
    index = _faiss().IndexBinaryFlat(HASH_BITS)
    index.query_batch_size = 4096  # 32 by default: faiss's threads would wait for each other most of the time
    index.add(_as_bytes(among))
    bits, rows = index.search(_as_bytes(queries), 1)
    return rows[:, 0], bits[:, 0].astype(np.int64)


# ---- what is left ---------------------------------------------------------------------------------------------------


def _join_by_tables(hashes: Words, rows: Rows, max_bits: int, sets: _Sets) -> None:
    """Join all near hashes, one table at a time.

    With t tables and max_bits < 2 t, two near hashes differ in at most one bit of some table's key.
    """
    num_tables = max_bits // 2 + 1
    share = HASH_BITS // num_tables
    # Neighbouring bits of an image's hash are alike; mixed, the keys fill more buckets (half the work on MedPix).
    order = np.random.default_rng(0).permutation(HASH_BITS)
    for table in range(num_tables):
        keyed = _with_bits_first(hashes, np.roll(order, -table * share))
        index = _faiss().IndexBinaryHash(HASH_BITS, min(share, MAX_KEY_BITS))
        index.nflip = 1
        index.add(keyed)
        for queries, near in _near_rows(index, keyed, max_bits):
            ahead = queries < near
            sets.join(rows[queries[ahead]], rows[near[ahead]])


def _near_rows(index: Any, hashes: NDArray[np.uint8], max_bits: int) -> Iterator[tuple[Rows, Rows]]:
    """The near rows that a table holds for each hash, itself included: (number of the hash, row), some at a time."""
    start, at_once = 0, QUERIES_AT_ONCE[0]
    while start < len(hashes):
        # faiss gives what differs in fewer bits than the radius.
        limits, _, near = index.range_search(hashes[start : start + at_once], max_bits + 1)
        answers = np.diff(limits.astype(np.int64))
        yield np.repeat(np.arange(start, start + len(answers)), answers), near
        start += at_once
        at_once = int(np.clip(MAX_ANSWERS / max(answers.mean(), 1), *QUERIES_AT_ONCE))


def _with_bits_first(hashes: Words, order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The hashes with their bits in another order, [row, 32]."""
    content = _as_bytes(hashes)
    ordered = np.empty_like(content)
    for start in range(0, len(content), 65536):
        bits = np.unpackbits(content[start : start + 65536], axis=1)
        ordered[start : start + 65536] = np.packbits(np.take(bits, order, axis=1), axis=1)
    return ordered


def _as_bytes(hashes: Words) -> NDArray[np.uint8]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), HASH_BITS // 8)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise missing_extra("faiss-cpu", "audit") from None
    return faiss
