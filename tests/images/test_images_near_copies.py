"""Sets of near copies: the same as all pairs compared, in bounded time and memory whatever the hashes are."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from gapless.images import near_copies
from gapless.images.near_copies import HASH_BITS, MAX_BITS, near_sets

pytest.importorskip("faiss")


def random_hashes(rng, count):
    return rng.integers(0, 2**64, (count, 4), dtype=np.uint64)


def flipped(rng, hashes, counts):
    """The hashes with so many of their bits turned over, drawn by lot."""
    bits = np.unpackbits(hashes.view(np.uint8).reshape(len(hashes), 32), axis=1)
    for row, count in zip(bits, counts, strict=True):
        row[rng.choice(HASH_BITS, count, replace=False)] ^= 1
    return np.packbits(bits, axis=1).view(np.uint64)


def mixture(seed, max_bits):
    """Lonely hashes, copies around the limit, tight and loose clusters, a chain, equal ones; in random order."""
    rng = np.random.default_rng(seed)
    parts = [random_hashes(rng, 200)]
    parts += [flipped(rng, parts[0][:30], [bits] * 30) for bits in range(max(0, max_bits - 2), max_bits + 4)]
    parts.append(flipped(rng, np.repeat(random_hashes(rng, 2), [150, 250], axis=0), rng.integers(0, max_bits + 2, 400)))
    parts.append(flipped(rng, np.repeat(random_hashes(rng, 1), 300, axis=0), rng.integers(10, 22, 300)))
    chain = [random_hashes(rng, 1)]
    for _ in range(120):
        chain.append(flipped(rng, chain[-1], [max(1, max_bits // 2)]))
    hashes = np.concatenate([*parts, *chain, parts[0][:5], np.zeros((3, 4), np.uint64)])
    return hashes[rng.permutation(len(hashes))]


def sets_by_all_pairs(hashes, max_bits):
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2, dtype=np.int64)
    return connected_components(bits <= max_bits, directed=False)[1]


def are_equal(left, right):
    pairs = np.unique(np.stack([left, right]), axis=1).shape[1]
    return pairs == len(np.unique(left)) == len(np.unique(right))


@pytest.mark.parametrize("max_bits", [0, 1, 5, MAX_BITS, 25, 40])
def test_the_sets_are_those_of_all_pairs_compared(max_bits):
    hashes = mixture(max_bits, max_bits)
    expected = sets_by_all_pairs(hashes, max_bits)
    assert are_equal(near_sets(hashes, max_bits), expected)
    assert not are_equal(near_sets(hashes, max_bits + 1), expected)  # the control: one bit more joins others


@pytest.mark.parametrize("name", ["_join_large_clusters", "_join_by_tables"])
def test_either_step_alone_misses_sets(monkeypatch, name):
    """The control of the comparison above: it notices when a step is left out."""
    hashes = mixture(3, MAX_BITS)
    skipped = {
        "_join_large_clusters": lambda hashes, max_bits, sets: np.arange(0),
        "_join_by_tables": lambda *arguments: None,
    }
    monkeypatch.setattr(near_copies, name, skipped[name])
    assert not are_equal(near_sets(hashes), sets_by_all_pairs(hashes, MAX_BITS))


def test_tables_alone_are_exact(monkeypatch):
    """What the draw of large clusters misses is found by the tables, also when answers come in small portions."""
    monkeypatch.setattr(near_copies, "_join_large_clusters", lambda hashes, max_bits, sets: np.arange(len(hashes)))
    monkeypatch.setattr(near_copies, "QUERIES_AT_ONCE", (10, 100))
    monkeypatch.setattr(near_copies, "MAX_ANSWERS", 500)
    hashes = mixture(4, MAX_BITS)
    assert are_equal(near_sets(hashes), sets_by_all_pairs(hashes, MAX_BITS))


def test_a_cluster_of_different_near_hashes_takes_no_memory_for_its_pairs():
    """20,000 hashes of which all are near to each other have 200 million pairs, 3 GB as a list."""
    rng = np.random.default_rng(0)
    noise = np.packbits(rng.random((20_000, HASH_BITS)) < 0.02, axis=1).view(np.uint64)
    hashes = np.concatenate([random_hashes(rng, 1) ^ noise, random_hashes(rng, 1000)])
    assert len(np.unique(hashes, axis=0)) > 19_000
    tracemalloc.start()
    sets = near_sets(hashes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(sets)) == 1001
    assert peak < 60e6


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_hashes(count):
    assert near_sets(np.zeros((count, 4), np.uint64)).tolist() == [0] * count
