"""A collection on an object store: moto stands in for S3, and everything but the address is as on a disk."""

import json

import pytest
from fakes import tiny_model
from object_store import empty_bucket
from search_samples import brute_force, embedding_set, keyed, unit_rows, write

from gapless.cli.main import main
from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.readers.phantom import write_phantom
from gapless.search.build import delete_rows
from gapless.search.collection import Collection
from gapless.search.indices import update_indices


@pytest.fixture(scope="module")
def bucket():
    with empty_bucket() as address:
        yield address


def test_write_add_delete_and_search_are_those_of_a_directory(bucket, tmp_path):
    first = embedding_set({"image": unit_rows(60), "text": unit_rows(60, seed=1)})
    more = embedding_set({"image": unit_rows(20, seed=2), "text": unit_rows(20, seed=3)}, start=60)
    staging = tmp_path / "staging"
    (staging / "mine").mkdir(parents=True)
    for address in (f"{bucket}/c", str(tmp_path / "c")):
        write(address, first, staging=staging)
        reader = Collection.open(address)
        write(address, more, staging=staging)
        assert reader.count() == 160  # an open collection sees what was added
        assert delete_rows(reader, f"id = '{first.ids[5]}'") == 2
        update_indices(reader, None)
    assert [path.name for path in staging.iterdir()] == ["mine"]  # ours is gone, what else is there is not touched
    rows = {key: row for key, row in (keyed(first) | keyed(more)).items() if not key.startswith(f"{first.ids[5]}/")}
    stored, local = Collection.open(f"{bucket}/c"), Collection.open(tmp_path / "c")
    for query in unit_rows(3, seed=7):
        hits = stored.search(query, k=30)
        assert [(hit.row, hit.score) for hit in hits] == brute_force(rows, query, 30)
        assert hits == local.search(query, k=30)


def test_the_commands_take_an_address(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_phantom(tmp_path / "m", num_pairs=30, num_validation=3, num_test=6, image_size=16)
    tiny_model().save_pretrained(tmp_path / "model")
    index = ["index", "model", "--data", "m", "--out", f"{bucket}/phantom"]
    assert main(index) == 2
    assert "--staging" in capsys.readouterr().err
    assert main([*index, "--staging", "work", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 60
    assert main(["search", f"{bucket}/phantom", "pleural effusion", "--modality", "image", "--k", "3", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["modality"] for hit in hits] == ["image"] * 3
    thumbnail = Collection.open(f"{bucket}/phantom").thumbnail_of(hits[0]["row"])
    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8")
    assert main(["search", f"{bucket}/phantom", "pleural effusion", "--hybrid", "--k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2
    assert main(["index", "delete", f"{bucket}/phantom", "--where", "split = 'test'", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": 12, "rows": 48}
    assert main([*index, "--staging", "work", "--json"]) == 0  # what was deleted stays out, in an object store too
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["added"], told["deleted"], told["unchanged"]) == (48, 0, 6, 24)
    assert main([*index, "--staging", "work", "--restore_deleted", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["restored"], told["deleted"], told["unchanged"]) == (60, 6, 0, 24)


def test_what_is_not_there_is_one_sentence(bucket):
    with pytest.raises(UsageError, match="no collection"):
        Collection.open(f"{bucket}/nothing")
    with pytest.raises(DataRefused, match="s3://elsewhere/c cannot be read") as raised:
        Collection.open("s3://elsewhere/c")
    assert "\n" not in str(raised.value)
