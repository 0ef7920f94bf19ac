"""Modalities that arrive later, change, or go: what indexing again does to the rows of a sample."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_samples import collection_of, embedding_set, unit_rows, write

from gapless.core.errors import DataRefused
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.search.balance_store import BalanceSettings
from gapless.search.build import delete_rows
from gapless.search.collection import Collection
from gapless.search.indices import update_indices
from gapless.search.rebalance import update_balance

NAMES = ("image", "text", "labs")
COUNT = 40


def cases(has: Mapping[str, Any] | None = None, **changed: np.ndarray) -> EmbeddingSet:
    """Samples of three modalities, of which odd ones lack labs; `has` are other masks, `changed` other vectors."""
    vectors = {name: unit_rows(COUNT, seed=number) for number, name in enumerate(NAMES)} | changed
    present = {"labs": np.arange(COUNT) % 2 == 0, **(has or {})}
    return embedding_set(vectors, ids=[f"s{n:02}" for n in range(COUNT)], present=present)


def rows_in(collection: Collection) -> dict[str, tuple[Any, ...]]:
    """Key -> all else that the table holds of a row."""
    rows = collection.table.to_arrow().to_pylist()
    return {row.pop("row"): tuple(map(str, row.values())) for row in rows}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    collection_of(tmp_path / "c", cases())
    return tmp_path / "c"


def test_absent_modalities_have_no_row(place):
    rows = rows_in(Collection.open(place))
    assert set(rows) == {f"s{n:02}/{name}" for n in range(COUNT) for name in NAMES if name != "labs" or n % 2 == 0}


def test_a_modality_that_arrives_is_one_more_row_and_no_other_is_touched(place):
    before = rows_in(Collection.open(place))
    more = np.arange(COUNT) % 2 == 0
    more[[3, 5]] = True
    collection, changes = write(place, cases({"labs": more}))
    assert changes.rows == {3: frozenset({"labs"}), 5: frozenset({"labs"})}
    assert (changes.extended, changes.added, changes.updated, changes.unchanged) == ([3, 5], [], [], COUNT - 2)
    after = rows_in(collection)
    assert set(after) - set(before) == {"s03/labs", "s05/labs"}
    assert {key: after[key] for key in before} == before
    np.testing.assert_array_equal(collection.vector_of("s03/labs"), unit_rows(COUNT, seed=2)[3])
    again, changes = write(place, cases({"labs": more}))
    assert (changes.rows, changes.unchanged) == ({}, COUNT)
    assert again.table.version == collection.table.version


def test_content_that_changed_is_refused_until_update_and_then_its_row_alone_is_replaced(place):
    before = rows_in(Collection.open(place))
    other = unit_rows(COUNT, seed=2)
    other[4] = other[6]
    with pytest.raises(DataRefused, match=r"1 samples differ .*s04.*--update replaces them"):
        write(place, cases(labs=other))
    assert rows_in(Collection.open(place)) == before
    collection, changes = write(place, cases(labs=other), update=True)
    assert (changes.updated, changes.rows) == ([4], {4: frozenset({"labs"})})
    assert changes.replaced(cases().ids) == {"s04/labs"}
    after = rows_in(collection)
    assert {key for key in before if after[key] != before[key]} == {"s04/labs"}
    np.testing.assert_array_equal(collection.vector_of("s04/labs"), other[4])


def test_a_modality_that_goes_is_refused_until_update_and_then_its_row_goes(place):
    collection = Collection.open(place)
    update_balance(collection, BalanceSettings())
    before = rows_in(collection)
    fewer = np.arange(COUNT) % 2 == 0
    fewer[[0, 8]] = False
    with pytest.raises(DataRefused, match=r"lack 2 rows that it holds of them \(s00/labs, s08/labs\); --update"):
        write(place, cases({"labs": fewer}))
    assert rows_in(Collection.open(place)) == before
    collection, changes = write(place, cases({"labs": fewer}), update=True)
    assert changes.withdrawn == ["s00/labs", "s08/labs"]
    after = rows_in(collection)
    assert set(before) - set(after) == {"s00/labs", "s08/labs"}
    assert {key: before[key] for key in after} == after
    banks = collection.balance().held["labs"].rows
    assert not {"s00/labs", "s08/labs"} & set(banks)
    _, changes = write(place, cases())
    assert changes.extended == [0, 8], "what went was not deleted: it may come back"


def test_going_and_arriving_is_one_commit(place):
    version = Collection.open(place).table.version
    has = np.arange(COUNT) % 2 == 0
    has[[0, 1]] = [False, True]
    other = unit_rows(COUNT, seed=0)
    other[7] = other[9]
    collection, changes = write(place, cases({"labs": has}, image=other), update=True)
    assert collection.table.version == version + 1
    assert changes.rows == {1: frozenset({"labs"}), 7: frozenset({"image"})}
    assert collection.get("s00/labs") is None
    assert collection.get("s01/labs").id == "s01"


def test_a_sample_that_was_deleted_stays_out_with_what_it_brings(place):
    collection = Collection.open(place)
    delete_rows(collection, "id = 's03'")
    delete_rows(collection, "id = 's05' AND modality = 'image'")
    more = np.ones(COUNT, dtype=bool)
    collection, changes = write(place, cases({"labs": more}))
    assert changes.deleted == [3, 5]
    assert collection.rows_of("s03") == []
    assert [hit.modality for hit in collection.rows_of("s05")] == ["text", "labs"], "deleted in part: labs come in"
    collection, changes = write(place, cases({"labs": more}), restore_deleted=True)
    assert changes.restored == [3, 5]
    assert [hit.modality for hit in collection.rows_of("s03")] == list(NAMES)


def test_data_that_do_not_name_a_modality_say_nothing_of_its_rows(place):
    two = cases()
    two = embedding_set({name: two.embeddings[name] for name in ("image", "text")}, ids=two.ids)
    collection, changes = write(place, two, update=True)
    assert changes.withdrawn == []
    assert collection.get("s00/labs") is not None


def test_collections_of_earlier_versions_know_their_samples_again(place, tmp_path):
    """They hold one digest for all rows of a sample, and have no column of previews."""
    whole = embedding_set({name: unit_rows(20, seed=number) for number, name in enumerate(NAMES)})
    collection = collection_of(tmp_path / "old", whole)
    from gapless.embeddings.dataset import VectorPairs
    from gapless.inference.embed import Source, columns_of
    from gapless.search.samples import Samples

    source = Source(VectorPairs(whole.embeddings, whole.ids), columns_of(whole), {})
    earlier = dict(zip(whole.ids, Samples.of_embeddings(source, whole, "drawn").earlier, strict=True))
    for sample, digest in earlier.items():
        collection.table.update(where=f"id = '{sample}'", values={"content": digest})
    collection.table.drop_columns(["preview"])
    opened = Collection.open(tmp_path / "old")
    assert not opened.has_previews
    assert opened.search(whole.embeddings["labs"][0], k=1)[0].preview is None
    collection, changes = write(tmp_path / "old", whole)
    assert (changes.unchanged, changes.rows) == (20, {})
    collection, changes = write(tmp_path / "old", embedding_set({n: unit_rows(9, seed=9) for n in NAMES}, start=50))
    assert len(changes.added) == 9
    assert collection.count() == 3 * 29
    update_indices(collection, None)


def test_the_approximate_index_finds_rows_of_every_modality_that_has_any(tmp_path):
    collection = collection_of(tmp_path / "c", cases({"labs": np.zeros(COUNT, dtype=bool)}))
    update_indices(collection, "ivf-flat")
    update_balance(collection, BalanceSettings())
    assert collection.rows_per_modality() == {"image": COUNT, "text": COUNT, "labs": 0}
    assert set(collection.balance().held) == {"image", "text"}
    query = collection.vector_of("s03/image")
    exact = collection.search(query, k=2 * COUNT, exact=True, balanced={"image": 1.0})
    found = collection.search(query, k=10, exact=False, balanced={"image": 1.0})
    assert found[0].row == exact[0].row == "s03/image"
    assert {hit.modality for hit in found} == {"image", "text"}
    shutil.rmtree(tmp_path / "c")


def test_a_modality_that_the_model_lacks_is_no_content():
    from gapless.embeddings.dataset import VectorPairs
    from gapless.inference.embed import Source, columns_of
    from gapless.search.samples import Samples

    whole = embedding_set({name: unit_rows(20, seed=number) for number, name in enumerate(NAMES)})
    source = Source(VectorPairs(whole.embeddings, whole.ids), columns_of(whole), {})
    assert set(Samples.of_embeddings(source, whole, "drawn", NAMES[:2]).contents) == set(NAMES[:2])
    assert set(Samples.of_embeddings(source, whole, "drawn").contents) == set(NAMES)  # the control


def test_a_caption_that_arrives_with_embeddings_is_an_addition(tmp_path):
    vectors = {name: unit_rows(COUNT, seed=number) for number, name in enumerate(NAMES)}
    captions = ["" if number < 3 else f"caption {number}" for number in range(COUNT)]
    place = tmp_path / "c"
    before = rows_in(collection_of(place, embedding_set(vectors, captions=captions)))
    collection, changes = write(place, embedding_set(vectors, captions=["arrived", *captions[1:]]))
    assert (changes.extended, changes.captioned, changes.updated, changes.unchanged) == ([0], [0], [], COUNT - 1)
    after = rows_in(collection)
    sample = collection.rows_of(embedding_set(vectors).ids[0])
    assert {hit.caption for hit in sample} == {"arrived"}
    assert {key for key in before if after[key] != before[key]} == {hit.row for hit in sample}
    np.testing.assert_array_equal(collection.vector_of(sample[0].row), vectors[sample[0].modality][0])
    with pytest.raises(DataRefused, match="1 samples differ"):
        write(place, embedding_set(vectors, captions=captions))  # a caption that goes is a change
