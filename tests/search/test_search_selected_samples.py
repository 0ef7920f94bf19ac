"""`Collection.pairs_of`: the samples that are asked for, in that order, from memory and from the table alike."""

from pathlib import Path

import numpy as np
import pytest
from search_samples import collection_of, embedding_set, unit_rows

pytest.importorskip("lancedb", reason="needs the extra 'search'")
from gapless.core.errors import UsageError
from gapless.search.collection import Collection
from gapless.search.selection import shared_labels


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vectors = {"image": unit_rows(40), "text": unit_rows(40, seed=1)}
    labels = {"ward": ["a" if n % 4 else "b" for n in range(40)]}
    path = tmp_path_factory.mktemp("selected") / "collection"
    collection_of(path, embedding_set(vectors, ids=[f"s{n}" for n in range(40)], labels=labels))
    return path


@pytest.mark.parametrize("memory_bytes", [None, 0])
def test_samples_come_in_the_order_of_their_ids_without_the_unknown(path: Path, memory_bytes: int | None) -> None:
    pairs = Collection.open(path, memory_bytes).pairs_of(["s7", "nobody", "s3", "s0"])
    assert pairs.ids == ["s7", "s3", "s0"]
    assert np.allclose(pairs.vectors["text"], unit_rows(40, seed=1)[[7, 3, 0]])
    assert pairs.labels == {"ward": ["a", "a", "b"]}


def test_the_shares_are_those_of_the_selection_and_of_all(path: Path) -> None:
    collection = Collection.open(path)
    (shared,) = shared_labels(collection, collection.pairs_of(["s0", "s4", "s5"])).values()
    assert [(one.value, one.count, round(one.share, 3), one.collection_share) for one in shared] == [
        ("b", 2, 0.667, 0.25),
        ("a", 1, 0.333, 0.75),
    ]


def test_label_values_are_counted_again_when_rows_are_written(path: Path) -> None:
    collection = Collection.open(path)
    first = collection.label_values()
    assert collection.label_values() is first
    collection.table.delete("id = 's0'")
    assert dict(collection.label_values()["ward"])["b"] == dict(first["ward"])["b"] - 2


def test_an_id_that_is_no_text_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="a row is named by its key"):
        Collection.open(path).pairs_of([7])  # type: ignore[list-item]
