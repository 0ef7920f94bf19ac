"""Filters keep the recall of an approximate index: few rows that pass are scored exactly, more are looked for widely.

What is nearest comes from the drawn matrix, by products in float64 that know nothing of the collection.
"""

from pathlib import Path

import numpy as np
import pytest
from lancedb.index import IvfFlat
from search_samples import collection_of, embedding_set, unit_rows

from gapless.search import approximate
from gapless.search.collection import Collection
from gapless.search.facts import Facts, IndexReport, IndexSettings
from gapless.search.indices import MAX_PROBES, _broader
from gapless.search.row_readers import GATHERED_ROWS, GATHERED_SHARE

ROWS, DIM, K, PROBES = 6000, 24, 10, 6
SHARES = (0.01, 0.1, 0.5)
LABELS = ("part", "side")  # has nothing to do with the vectors; follows their first number


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return unit_rows(ROWS, DIM, seed=3)


@pytest.fixture(scope="module")
def labels(vectors: np.ndarray) -> dict[str, np.ndarray]:
    rank = np.argsort(np.argsort(vectors[:, 0]))
    return {"part": np.random.default_rng(1).permutation(ROWS) * 100 // ROWS, "side": rank * 100 // ROWS}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray, labels: dict[str, np.ndarray]) -> Path:
    path = tmp_path_factory.mktemp("filtered") / "c"
    known = {name: values.astype(str).tolist() for name, values in labels.items()}
    ids = [f"{number:05d}" for number in range(ROWS)]
    collection = collection_of(path, embedding_set({"image": vectors}, ids=ids, labels=known))
    # Small partitions, and no `optimize` afterwards, which would join them.
    collection.table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=77))
    report = IndexReport("ivf-flat", IndexSettings(nprobes=PROBES), 0.0, 0.95, 0)
    collection.keep_facts(Facts(index=report))
    return path


def recall(collection: Collection, vectors: np.ndarray, passes: np.ndarray, where: str | None) -> float:
    """Mean share of the exact nearest rows that pass which the index finds, of 40 queries."""
    rows = np.flatnonzero(passes)
    shares = []
    for query in unit_rows(40, DIM, seed=9):
        products = vectors[rows].astype(np.float64) @ query.astype(np.float64)
        nearest = {f"{row:05d}" for row in rows[np.argsort(-products)[:K]]}
        hits = collection.search(query, k=K, where=where, exact=False)
        assert all(passes[int(hit.id)] for hit in hits)
        shares.append(len(nearest & {hit.id for hit in hits}) / K)
    return float(np.mean(shares))


@pytest.fixture
def always_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "EXACT_BELOW", 0)
    monkeypatch.setattr(approximate, "EXACT_BELOW_HELD", 0)


@pytest.mark.usefixtures("always_approximate")
@pytest.mark.parametrize("label", LABELS)
def test_a_filter_does_not_lower_the_recall(
    path: Path, vectors: np.ndarray, labels: dict[str, np.ndarray], label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.open(path)
    unfiltered = recall(collection, vectors, np.ones(ROWS, dtype=bool), None)
    assert 0.3 < unfiltered < 0.9, "so few partitions do not find everything"
    filters = {share: (labels[label] < 100 * share, f"{label} < {round(100 * share)}") for share in SHARES}
    found = {share: recall(collection, vectors, *given) for share, given in filters.items()}
    assert min(found.values()) > unfiltered - 0.05, (unfiltered, found)
    assert found[0.01] > 0.95
    monkeypatch.setattr(approximate, "_partitions", lambda version, settings, conditions: settings.nprobes)
    control = {share: recall(collection, vectors, *given) for share, given in filters.items()}
    assert control[0.01] < unfiltered - 0.2, "the same partitions hold hardly any of the nearest rows that pass"


@pytest.mark.parametrize("memory_bytes", [None, 0], ids=["held", "read"])
@pytest.mark.parametrize("share", SHARES)
def test_few_rows_that_pass_are_all_scored(
    path: Path,
    vectors: np.ndarray,
    labels: dict[str, np.ndarray],
    share: float,
    memory_bytes: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collection = Collection.open(path, memory_bytes)
    monkeypatch.setattr(approximate, "_partitions", pytest.fail)
    passes, where = labels["part"] < 100 * share, f"part < {round(100 * share)}"
    assert recall(collection, vectors, passes, where) == 1
    version = collection.table_version()
    read = [len(rows.places) for rows in version.reader.passes(collection.condition(where=where).sql)]
    if memory_bytes is None and share > GATHERED_SHARE:
        assert read == [ROWS]  # scoring all is quicker than copying half of them out
    else:
        assert sum(read) == passes.sum()
        assert memory_bytes == 0 or max(read) <= GATHERED_ROWS


def test_a_filter_that_nothing_passes_finds_nothing(path: Path) -> None:
    for memory_bytes in (None, 0):
        collection = Collection.open(path, memory_bytes)
        for exact in (True, False):
            assert collection.search(unit_rows(1, DIM)[0], where="part > 1000", exact=exact) == []


class Forgetful(dict):
    """A memory that another thread clears as soon as something is in it."""

    def __setitem__(self, key: str, value: object) -> None:
        super().__setitem__(key, value)
        self.clear()


def test_what_is_remembered_of_a_filter_may_be_forgotten_by_another_thread(
    path: Path, labels: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries of the service run in threads, and one of them clears the memory when it is full."""
    collection = Collection.open(path)
    version, where = collection.table_version(), collection.condition(where="part < 10").sql
    monkeypatch.setattr(version, "_counts", Forgetful())
    monkeypatch.setattr(version.reader, "_allowed", Forgetful())
    passes = int((labels["part"] < 10).sum())
    assert version.count(where) == passes
    assert sum(len(rows.places) for rows in version.reader.passes(where)) == passes


def test_no_more_partitions_are_tried_than_the_most() -> None:
    for nprobes in (None, MAX_PROBES - 1):
        settings = IndexSettings(nprobes=nprobes)
        tried = [settings]
        while further := _broader(tried[-1], "ivf-flat"):
            tried += further
        assert tried[-1].nprobes == MAX_PROBES
