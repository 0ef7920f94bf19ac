"""Writing a collection: whole or absent, resumable, incremental; and what is refused."""

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from fakes import tiny_bert, tiny_modalities, tiny_model
from search_samples import FINGERPRINT, collection_of, embedding_set, unit_rows, write

from gapless.cli import main as cli
from gapless.core.errors import DataRefused, UsageError
from gapless.embeddings.store import EmbeddingsWriter
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.fingerprint import fingerprint_of
from gapless.search import build
from gapless.search.build import delete_rows
from gapless.search.collection import Collection
from gapless.search.searcher import Searcher
from gapless.search.table_rows import label_columns

NUM_PAIRS = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model and a manifest on disk."""
    place = tmp_path_factory.mktemp("build")
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    tiny_model(modalities=modalities).save_pretrained(place / "model")
    tiny_model(seed=1, modalities=modalities).save_pretrained(place / "other")
    write_phantom(place / "data", num_pairs=NUM_PAIRS, num_validation=6, num_test=10, image_size=16)
    return place


def index(place: Path, out: object, *more: object, model: str = "model", data: str = "data") -> int:
    return cli.main(["index", str(place / model), "--data", str(place / data), "--out", str(out), *map(str, more)])


def content_of(collection: Collection) -> list[dict]:
    return sorted(collection.table.to_arrow().to_pylist(), key=lambda row: row["row"])


@pytest.fixture(scope="module")
def whole(place):
    assert index(place, place / "whole") == 0
    return Collection.open(place / "whole")


def test_a_row_holds_vector_caption_labels_thumbnail_group_and_split(place, whole):
    manifest = Manifest.read(place / "data")
    searcher = Searcher.open(place / "whole")
    assert whole.info["model"] == {"source": [str(place / "model")], "fingerprint": fingerprint_of(searcher.model)}
    rows = {row["row"]: row for row in content_of(whole)}
    assert len(rows) == 2 * NUM_PAIRS
    for number, sample in enumerate(manifest.table.to_pylist()):
        for modality in ("image", "text"):
            row = rows[f"{sample['id']}/{modality}"]
            assert (row["group"], row["split"]) == (sample["group"], sample["split"])
            assert row["caption"] == manifest.first_captions[number]
            assert {name: row[name] or "" for name in manifest.labels} == {
                name: sample[name] or "" for name in manifest.labels
            }
            raw = manifest.image_path(number) if modality == "image" else row["caption"]
            expected = searcher.model.encode(modality, [raw])[0].numpy()
            np.testing.assert_allclose(row["vector"], expected, atol=1e-5)
    assert rows[f"{manifest.table['id'][0].as_py()}/image"]["thumbnail"].startswith(b"\xff\xd8")
    assert rows[f"{manifest.table['id'][0].as_py()}/text"]["thumbnail"] is None


def test_nothing_of_the_users_paths_but_the_models_name_is_kept(place, whole):
    rows = content_of(whole)
    said = json.dumps([{n: v for n, v in row.items() if n not in ("thumbnail", "vector")} for row in rows])
    assert str(place) not in said
    info = {name: value for name, value in whole.info.items() if name != "model"}
    assert str(place) not in json.dumps(info)
    assert all(b"Exif" not in (row["thumbnail"] or b"") for row in rows)


def test_running_again_changes_nothing(place, whole):
    version = whole.table.version
    before = content_of(whole)
    assert index(place, place / "whole") == 0
    assert content_of(Collection.open(place / "whole")) == before
    assert Collection.open(place / "whole").table.version - version <= 1  # the engine may note a compaction
    assert not (place / "whole" / "staging").exists()


def test_ready_embeddings_give_the_same_rows(place, whole, tmp_path):
    assert (
        cli.main(
            [
                "embed",
                str(place / "model"),
                "--data",
                str(place / "data"),
                "--out",
                str(tmp_path / "e"),
                "--batch_size=7",
            ]
        )
        == 0
    )
    assert cli.main(["index", str(place / "model"), "--data", str(tmp_path / "e"), "--out", str(tmp_path / "c")]) == 0
    for ready, row in zip(content_of(Collection.open(tmp_path / "c")), content_of(whole), strict=True):
        np.testing.assert_allclose(ready["vector"], row["vector"], atol=1e-5)
        same = set(row) - {"vector", "content", "thumbnail", "has_thumbnail"}
        assert {name: ready[name] for name in same} == {name: row[name] for name in same}


@pytest.mark.parametrize("at", ["first shard", "last shard", "commit", "full-text index"])
def test_an_interrupted_run_that_is_run_again_equals_an_uninterrupted_one(place, whole, tmp_path, monkeypatch, at):
    monkeypatch.setattr(build, "STAGED_ROWS", 16)
    out = tmp_path / "c"
    with monkeypatch.context() as patch:
        if at.endswith("shard"):
            real = EmbeddingsWriter.write
            stop_at = 0 if at == "first shard" else 2

            def killed(self, shard, *rest):
                if shard.index == stop_at:
                    raise KeyboardInterrupt
                real(self, shard, *rest)

            patch.setattr(EmbeddingsWriter, "write", killed)
        elif at == "commit":
            patch.setattr(build, "commit", interrupted)
        else:
            patch.setattr("gapless.search.indexing.update_indices", interrupted)
        assert index(place, out) == 130
    if at != "full-text index":
        with pytest.raises(UsageError, match="gapless index"):
            Collection.open(out)
    written = []
    real_write = EmbeddingsWriter.write
    monkeypatch.setattr(
        EmbeddingsWriter,
        "write",
        lambda self, shard, *rest: (written.append(shard.index), real_write(self, shard, *rest)),
    )
    assert index(place, out) == 0
    assert written == {"first shard": [0, 1, 2], "last shard": [2], "commit": [], "full-text index": []}[at]
    assert strip(content_of(Collection.open(out))) == strip(content_of(whole))
    assert sorted(entry.name for entry in out.iterdir()) == ["balance.lance", "rows.lance"]
    assert Searcher.open(out).search(text="mass", hybrid=True, k=3)


def test_a_first_commit_that_was_killed_is_started_anew(place, whole, tmp_path):
    """The engine leaves files without a version; a table that has one is somebody's, and damage to it is said."""
    out = tmp_path / "c"
    (out / "rows.lance" / "data").mkdir(parents=True)
    (out / "rows.lance" / "data" / ".tmpQ").write_bytes(b"half a file")
    (out / "staging").mkdir()
    assert index(place, out) == 0
    assert strip(content_of(Collection.open(out))) == strip(content_of(whole))
    assert not list(out.rglob(".tmpQ"))
    for version in (out / "rows.lance" / "_versions").glob("*.manifest"):
        version.write_bytes(b"")
    assert index(place, out) == 3


def interrupted(*args, **options):
    raise KeyboardInterrupt


def strip(rows):
    """Vectors to the digits that the composition of a batch leaves alone."""
    return [row | {"vector": np.round(row["vector"], 4).tolist()} for row in rows]


def test_rows_are_added_updated_and_deleted(tmp_path):
    first = embedding_set({"text": unit_rows(10)}, captions=[f"finding {n}" for n in range(10)])
    collection_of(tmp_path / "c", first)
    more = embedding_set({"text": unit_rows(15)}, captions=[f"finding {n}" for n in range(15)])
    collection, changes = write(tmp_path / "c", more)
    assert (len(changes.added), changes.updated, changes.unchanged) == (5, [], 10)
    changed = embedding_set({"text": unit_rows(15)}, captions=["another", *(f"finding {n}" for n in range(1, 15))])
    with pytest.raises(DataRefused, match=r"1 samples differ .*s000000.*--update"):
        write(tmp_path / "c", changed)
    assert collection.get("s000000/text").caption == "finding 0"
    collection, changes = write(tmp_path / "c", changed, update=True)
    assert (changes.added, changes.updated, changes.unchanged) == ([], [0], 14)
    assert collection.count() == 15
    assert collection.get("s000000/text").caption == "another"
    assert collection.search(unit_rows(1)[0], words="another", k=1)[0].id == "s000000"
    assert delete_rows(collection, "caption like 'finding 1_'") == 5
    assert collection.count() == 10
    assert {hit.caption for hit in collection.search(unit_rows(1)[0], k=99)} == {
        "another",
        *(f"finding {n}" for n in range(1, 10)),
    }
    assert delete_rows(collection, "caption = 'never'") == 0


def test_one_modality_of_a_sample_that_was_deleted_comes_back_whole(tmp_path):
    drawn = embedding_set({"image": unit_rows(4), "text": unit_rows(4, seed=1)})
    collection = collection_of(tmp_path / "c", drawn)
    delete_rows(collection, "modality = 'text' and id = 's000000'")
    collection, changes = write(tmp_path / "c", drawn, update=True)
    assert (changes.updated, changes.deleted, collection.count()) == ([], [0], 7)
    collection, changes = write(tmp_path / "c", drawn, restore_deleted=True)
    assert (changes.restored, changes.unchanged, collection.count()) == ([0], 3, 8)


def test_readers_see_the_old_or_the_new_version(tmp_path):
    """One thread reads without a pause while rows are added, changed and deleted; every answer is of one version."""
    sizes = [50, 130, 210]
    captions = ["first", "second", "third"]
    path = tmp_path / "c"

    def version(number):
        count = sizes[number]
        return embedding_set({"text": unit_rows(count, 8)}, captions=[captions[number]] * count)

    collection_of(path, version(0))
    seen: set[tuple[int, frozenset[str]]] = set()
    faults: list[BaseException] = []
    done = threading.Event()

    def read(memory_bytes):
        collection = Collection.open(path, memory_bytes)
        query = unit_rows(1, 8, seed=3)[0]
        try:
            while not done.is_set():
                hits = collection.search(query, k=1000)
                seen.add((len(hits), frozenset(hit.caption or "" for hit in hits)))
                assert collection.count() in sizes
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=read, args=(size,)) for size in (1 << 30, 0, 0)]
    for thread in threads:
        thread.start()
    for number in (1, 2):
        collection_of(path, version(number), update=True)
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    allowed = {(size, frozenset([caption])) for size, caption in zip(sizes, captions, strict=True)}
    assert seen <= allowed
    assert len(seen) > 1


def test_an_open_collection_follows_what_others_write(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set({"text": unit_rows(5)}))
    assert len(collection.search(unit_rows(1)[0], k=99)) == 5
    collection_of(tmp_path / "c", embedding_set({"text": unit_rows(9)}))
    assert len(collection.search(unit_rows(1)[0], k=99)) == collection.count() == 9


def test_another_model_is_refused(place, whole, tmp_path, capsys):
    before = content_of(whole)
    assert index(place, place / "whole", model="other") == 2
    assert "another model" in capsys.readouterr().err
    assert cli.main(["search", str(place / "whole"), "mass", "--model", str(place / "other")]) == 2
    assert "another model" in capsys.readouterr().err
    assert content_of(whole) == before


def test_a_model_that_has_moved_is_named(place, whole, tmp_path, capsys):
    shutil.copytree(place / "model", tmp_path / "moved")
    shutil.copytree(place / "whole", tmp_path / "c")
    (place / "model").rename(place / "gone")
    try:
        assert cli.main(["search", str(tmp_path / "c"), "mass"]) == 2
        said = capsys.readouterr().err
        assert "--model" in said
        assert len(said.splitlines()) == 1
        assert cli.main(["search", str(tmp_path / "c"), "mass", "--model", str(tmp_path / "moved")]) == 0
    finally:
        (place / "gone").rename(place / "model")


def test_other_labels_are_refused(tmp_path):
    collection_of(tmp_path / "c", embedding_set({"text": unit_rows(4)}, labels={"type": ["a"] * 4}))
    with pytest.raises(UsageError, match="no label 'site'"):
        write(tmp_path / "c", embedding_set({"text": unit_rows(6)}, labels={"site": ["b"] * 6}))
    _, changes = write(tmp_path / "c", embedding_set({"text": unit_rows(2)}, start=4))  # fewer labels are empty ones
    assert len(changes.added) == 2


def test_labels_whose_names_are_taken_or_strange_get_columns_of_their_own(tmp_path):
    names = ["modality", "Caption", "vector", "row", "plane", "a b", "a.b", "_score", "肺"]
    columns = label_columns(names)
    assert columns["plane"] == "plane"
    assert columns["modality"] == "label_modality"
    assert len({column.lower() for column in columns.values()}) == len(names)
    drawn = embedding_set({"text": unit_rows(3)}, labels={name: [f"{name}{n}" for n in range(3)] for name in names})
    collection = collection_of(tmp_path / "c", drawn)
    hit = collection.search(unit_rows(1)[0], k=1)[0]
    assert set(hit.labels) == set(names)
    assert collection.count("`a.b` = 'a.b1'") == 1
    assert collection.count("label_modality = 'modality1'") == collection.count("`肺` = '肺2'") == 1


def test_a_directory_that_holds_something_else_stays_as_it_is(place, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    assert index(place, tmp_path / "mine") == 2
    assert "in use" in capsys.readouterr().err
    assert index(place, tmp_path / "mine" / "thesis.txt") == 2
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_what_else_lies_in_the_staging_directory_stays(place, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "thesis.txt").write_text("chapter 1")
    assert index(place, tmp_path / "c", "--staging", tmp_path / "scratch") == 0
    assert [entry.name for entry in (tmp_path / "scratch").iterdir()] == ["thesis.txt"]


def test_two_writers_do_not_write_one_collection_together(place, tmp_path, capsys):
    with build.working_directory(str(tmp_path / "c"), None):
        assert index(place, tmp_path / "c") == 2
    assert "another process" in capsys.readouterr().err


def test_a_foreign_table_is_refused(tmp_path):
    import lancedb
    import pyarrow as pa

    lancedb.connect(str(tmp_path / "c")).create_table("rows", pa.table({"a": [1]}))
    with pytest.raises(DataRefused, match="did not write"):
        Collection.open(tmp_path / "c")
    with pytest.raises(DataRefused, match="did not write"):
        write(tmp_path / "c", embedding_set({"text": unit_rows(3)}))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere", Path(__file__)):
        with pytest.raises((UsageError, DataRefused)) as error:
            Collection.open(path)
        assert "\n" not in str(error.value)
    assert list((tmp_path / "empty").iterdir()) == []


def answer_of(path: Path, query: np.ndarray) -> list[str] | str:
    """The keys that a search finds, or the sentence that refuses it."""
    try:
        return [hit.row for hit in Collection.open(path).search(query, k=5)]
    except (DataRefused, UsageError) as error:
        return str(error)


def files_of(path: Path) -> list[Path]:
    return sorted(entry for entry in path.rglob("*") if entry.is_file())


@pytest.mark.parametrize("fault", ["cut", "gone", "noise", "empty"])
def test_a_damaged_collection_is_one_sentence_and_stays_as_it_is(tmp_path, fault):
    """Every file in turn. A search either says that the collection is damaged, or answers as before."""
    drawn = embedding_set({"text": unit_rows(50)}, captions=[f"finding {n}" for n in range(50)])
    query = unit_rows(1)[0]
    expected = collection_of(tmp_path / "good", drawn).search(query, k=5)
    refused = 0
    for number, file in enumerate(files_of(tmp_path / "good")):
        bad = tmp_path / f"bad{number}"
        shutil.copytree(tmp_path / "good", bad)
        target = bad / file.relative_to(tmp_path / "good")
        content = target.read_bytes()
        if fault == "gone":
            target.unlink()
        else:
            middle = len(content) // 2
            noise = bytes(byte ^ 0xA5 for byte in content[middle : middle + 64])
            target.write_bytes(
                {"cut": content[:middle], "noise": content[:middle] + noise + content[middle + 64 :], "empty": b""}[
                    fault
                ]
            )
        before = {entry: entry.read_bytes() for entry in files_of(bad)}
        answer = answer_of(bad, query)
        if isinstance(answer, str):
            refused += 1
            assert 0 < len(answer) < 500
            assert "\n" not in answer
        else:
            assert answer == [hit.row for hit in expected]
        assert {entry: entry.read_bytes() for entry in files_of(bad)} == before
    assert refused >= 1


def test_the_fingerprint_is_that_of_the_collection(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set({"text": unit_rows(3)}))
    collection.check_model(FINGERPRINT)
    with pytest.raises(UsageError, match="another model"):
        collection.check_model("0" * 64)
    with pytest.raises(UsageError, match="another model"):
        write(tmp_path / "c", embedding_set({"text": unit_rows(5)}), fingerprint="0" * 64)
    assert collection.count() == 3
