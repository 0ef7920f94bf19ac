"""The journey as a user makes it: the real command in a subprocess; kills, and what goes wrong on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_server import gapless, succeeded
from fakes import tiny_bert, tiny_modalities, tiny_model

from gapless.cli import main as cli
from gapless.manifest.readers.phantom import write_phantom
from gapless.search.collection import Collection


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "gapless", *map(str, arguments)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("journey")
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    tiny_model(modalities=modalities).save_pretrained(place / "model")
    write_phantom(place / "data", num_pairs=60, num_validation=6, num_test=10, image_size=16)
    words = ("index", place / "model", "--data", place / "data", "--out", place / "c", "--ann", "ivf-flat", "--json")
    value = json.loads(succeeded(gapless(*words)))
    assert (value["rows"], value["added"], value["updated"]) == (120, 60, 0)
    assert 0 < value["index"]["recall@10"] <= 1
    return place


def answer(capsys, *arguments: object) -> dict:
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_words_an_image_and_both_find_rows(place, capsys):
    image = next((place / "data").rglob("*.png"))
    found = {}
    for name, query in {
        "words": ["left mass"],
        "image": ["--image", image],
        "both": ["left mass", "--image", image, "--image-weight", "0.3"],
        "hybrid": ["left mass", "--hybrid"],
        "filtered": ["left mass", "--where", "modality_type = 'CT' and split = 'train'", "--modality", "image"],
    }.items():
        hits = answer(capsys, "search", place / "c", *query, "--k", 4, "--exact")["hits"]
        assert [hit["rank"] for hit in hits] == [1, 2, 3, 4]
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        found[name] = [hit["row"] for hit in hits]
        assert name != "filtered" or all(hit["labels"]["modality_type"] == "CT" for hit in hits)
        assert name != "filtered" or {hit["modality"] for hit in hits} == {"image"}
    assert found["image"][0].endswith("/image")
    assert found["words"] != found["image"] != found["both"]
    assert cli.main(["search", str(place / "c"), "left mass", "--k", "2"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "c"], 2, "words, an image"),
        (["search", "c", "  "], 2, "empty"),
        (["search", "c", "x", "--image", "broken.png"], 3, "broken.png"),
        (["search", "c", "x", "--image", "nowhere.png"], 3, "nowhere.png"),
        (["search", "c", "x", "--where", "nothing = 1"], 2, "modality_type"),
        (["search", "c", "x", "--modality", "sound"], 2, "image, text"),
        (["search", "c", "x", "--k", "0"], 2, "at least 1"),
        (["search", "c", "x", "--image_weight", "2", "--image", "broken.png"], 2, "between 0 and 1"),
        (["search", "c", "--image", "broken.png", "--hybrid"], 2, "words"),
        (["search", "nowhere", "x"], 2, "nowhere does not exist"),
        (["search", "data", "x"], 2, "no collection"),
        (["index", "model", "--data", "data", "--out", "data"], 2, "in use"),
        (["index", "model", "--data", "nowhere", "--out", "new"], 2, "nowhere"),
        (["index", "model", "--data", "data", "--out", "new", "--ann", "magic"], 2, "hnsw"),
        (["index", "model", "--data", "data", "--out", "s3://bucket/c"], 2, "--staging"),
        (["index", "model", "--data", "data", "--out", "new", "--split", "never"], 2, "never"),
        (["index delete", "c", "--where", "nothing = 1"], 2, "nothing"),
        (["embed", "model", "--data", "data", "--out", "new", "--ray", "127.0.0.1:1"], 2, "no Ray cluster"),
    ],
)
def test_bad_usage_is_one_sentence_and_the_collection_stays(place, monkeypatch, capsys, arguments, code, said):
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    monkeypatch.chdir(place)
    assert cli.main([*arguments[0].split(), *arguments[1:]]) == code
    out, error = capsys.readouterr()
    assert said in error
    assert [line[:9] for line in error.splitlines() if line and "Loading weights" not in line] == ["gapless: "], error
    assert out == ""
    assert not (place / "new").exists()
    assert Collection.open(place / "c").count() == 120


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["shard-00000.json", "shard-00002.json", "rows.lance", "_indices"])
def test_a_run_that_is_killed_and_run_again_equals_an_uninterrupted_one(place, tmp_path, moment):
    data = tmp_path / "data"
    write_phantom(data, num_pairs=4000, num_validation=6, num_test=10, image_size=16)
    words = ("index", place / "model", "--data", data, "--batch_size", 64, "--out")
    process = subprocess.Popen(command(*words, tmp_path / "c"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(f"c/**/{moment}")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    succeeded(gapless(*words, tmp_path / "c"))
    succeeded(gapless(*words, tmp_path / "whole"))
    killed, whole = (
        Collection.open(tmp_path / name).table.to_arrow().sort_by("row").drop_columns(["vector"])
        for name in ("c", "whole")
    )
    assert killed.equals(whole)
    assert [entry.name for entry in (tmp_path / "c").iterdir()] == ["rows.lance"]
    assert "hits" in json.loads(succeeded(gapless("search", tmp_path / "c", "left mass", "--hybrid", "--json")))
