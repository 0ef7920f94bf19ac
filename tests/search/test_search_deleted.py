"""Rows that were deleted stay out of a collection until somebody says otherwise; and what else a run leaves is said."""

import pytest
from search_samples import collection_of, embedding_set, unit_rows, write

from gapless.core.errors import DataRefused
from gapless.search import build
from gapless.search.build import delete_rows
from gapless.search.changes import missing_from
from gapless.search.collection import Collection, connect
from gapless.search.deleted_rows import DELETED_TABLE

CAPTIONS = [f"finding {number}" for number in range(12)]


def drawn(count: int = 12, captions: list[str] | None = None, **known):
    vectors = {"image": unit_rows(count), "text": unit_rows(count, seed=1)}
    groups = [f"patient {number // 3}" for number in range(count)]
    return embedding_set(vectors, captions=captions or CAPTIONS[:count], groups=groups, **known)


def captions_in(collection: Collection) -> set[str | None]:
    return {hit.caption for hit in collection.search(unit_rows(1)[0], k=99)}


def test_deleted_rows_stay_out_of_the_next_run_of_the_same_data(tmp_path):
    collection = collection_of(tmp_path / "c", drawn())
    assert delete_rows(collection, "group = 'patient 2'") == 6
    for _ in range(2):
        collection, changes = write(tmp_path / "c", drawn())
        assert (changes.added, changes.deleted, changes.unchanged) == ([], [6, 7, 8], 9)
        assert captions_in(collection) == {*CAPTIONS[:6], *CAPTIONS[9:]}
    collection, changes = write(tmp_path / "c", drawn(), restore_deleted=True)
    assert (changes.restored, changes.deleted, collection.count()) == ([6, 7, 8], [], 24)
    table = connect(collection.uri).open_table(DELETED_TABLE)
    assert table.count_rows() == 0
    _, changes = write(tmp_path / "c", drawn())  # restored once is restored for good
    assert (changes.deleted, changes.unchanged) == ([], 12)


def test_without_the_notes_they_would_come_back(tmp_path, monkeypatch):
    """The control: a deletion that notes nothing."""
    monkeypatch.setattr(build, "remember", lambda collection, rows: None)
    collection = collection_of(tmp_path / "c", drawn())
    delete_rows(collection, "group = 'patient 2'")
    collection, changes = write(tmp_path / "c", drawn())
    assert (changes.added, collection.count()) == ([6, 7, 8], 24)


def test_new_rows_of_the_same_patient_are_no_deleted_rows(tmp_path):
    collection = collection_of(tmp_path / "c", drawn(9))
    delete_rows(collection, "group = 'patient 2'")
    collection, changes = write(tmp_path / "c", drawn())
    assert (changes.added, changes.deleted) == ([9, 10, 11], [6, 7, 8])


def test_an_update_neither_restores_nor_forgets(tmp_path):
    """One text is deleted; then its sample and another get other captions."""
    collection = collection_of(tmp_path / "c", drawn())
    first, second = drawn().ids[:2]
    delete_rows(collection, f"id = '{first}' AND modality = 'text'")
    changed = drawn(captions=["another", "other", *CAPTIONS[2:]])
    with pytest.raises(DataRefused, match=f"2 samples differ .*{first}, {second}.*--update"):
        write(tmp_path / "c", changed)
    collection, changes = write(tmp_path / "c", changed, update=True)
    assert (changes.updated, changes.deleted, changes.changed_since) == ([0, 1], [0], 1)
    assert collection.count() == 23
    assert collection.get(f"{first}/text") is None
    assert collection.get(f"{first}/image").caption == "another"
    collection, changes = write(tmp_path / "c", changed, restore_deleted=True)
    assert (changes.restored, collection.count()) == ([0], 24)
    assert collection.get(f"{first}/text").caption == "another"


def test_a_deletion_that_is_interrupted_loses_nothing_and_keeps_its_notes_harmless(tmp_path, monkeypatch):
    collection = collection_of(tmp_path / "c", drawn())
    with monkeypatch.context() as patch:
        patch.setattr(type(collection.table), "delete", interrupted)
        with pytest.raises(KeyboardInterrupt):
            delete_rows(collection, "group = 'patient 0'")
    collection, changes = write(tmp_path / "c", drawn())
    assert (changes.deleted, changes.unchanged, collection.count()) == ([], 12, 24)
    delete_rows(collection, "group = 'patient 0'")
    assert write(tmp_path / "c", drawn())[1].deleted == [0, 1, 2]


def interrupted(*args, **options):
    raise KeyboardInterrupt


def test_what_is_noted_names_nobody(tmp_path):
    collection = collection_of(tmp_path / "c", drawn())
    delete_rows(collection, "true")
    noted = b"".join(file.read_bytes() for file in (tmp_path / "c" / f"{DELETED_TABLE}.lance").rglob("*.lance"))
    assert noted
    assert not any(word.encode() in noted for word in (*drawn().ids, *CAPTIONS, "patient"))


def test_samples_that_left_their_source_are_named(tmp_path):
    splits = ["train"] * 8 + ["test"] * 4
    collection_of(tmp_path / "c", drawn(splits=splits))
    collection, _ = write(tmp_path / "c", drawn(6, splits=splits[:6]))
    assert missing_from(collection, drawn().ids, "drawn", None) == []
    assert missing_from(collection, drawn(6).ids, "drawn", None) == sorted(drawn().ids[6:])
    assert missing_from(collection, drawn(6).ids, "drawn", "test") == sorted(drawn().ids[8:])
    assert missing_from(collection, drawn(6).ids, "another source", None) == []
    assert collection.count() == 24
