"""The balance through the API and the command: the default, `raw`, an image by HTTP, and refusals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_service import NUM_SAMPLES, pixels_of, png_of, write_collection_of_images
from starlette.testclient import TestClient

from gapless.cli.main import main
from gapless.search.collection import connect
from gapless.search.searcher import Searcher
from gapless.server.app import create_app


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("balanced")
    write_collection_of_images(home)
    return home


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Searcher.open(home / "collection")), base_url="http://127.0.0.1") as client:
        yield client


def ask(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.post("/api/search", json=query)
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def test_a_mixed_search_is_balanced_unless_raw_is_asked_for(client: TestClient) -> None:
    assert client.get("/api/collection").json()["balanced"] is True
    balanced, raw = ask(client, text="left effusion", k=60), ask(client, text="left effusion", k=60, raw=True)
    assert {hit["row"]: hit["similarity"] for hit in balanced} == {hit["row"]: hit["similarity"] for hit in raw}
    assert [hit["balanced"] for hit in balanced] == sorted((hit["balanced"] for hit in balanced), reverse=True)
    assert [hit["score"] for hit in raw] == sorted((hit["similarity"] for hit in raw), reverse=True)
    assert {hit["balanced"] for hit in raw} == {None}
    assert {hit["balanced"] for hit in ask(client, text="cyst", modality="text")} == {None}
    assert client.post("/api/search", json={"text": "x", "raw": "yes"}).status_code == 400


def test_images_vectors_rows_and_hybrid_are_balanced_too(client: TestClient) -> None:
    sent = {"image": ("scan.png", png_of(pixels_of(4)), "image/png")}
    hits = client.post("/api/search/image", files=sent, data={"query": '{"k": 5}'}).json()["hits"]
    assert hits[0]["similarity"] > 0.999  # its own image
    assert all(hit["balanced"] is not None for hit in hits)
    both = client.post("/api/search/image", files=sent, data={"query": '{"k": 5, "text": "knee", "raw": true}'})
    assert {hit["balanced"] for hit in both.json()["hits"]} == {None}
    assert all(hit["balanced"] is not None for hit in ask(client, like=hits[0]["row"], k=5))
    assert all(hit["balanced"] is not None for hit in ask(client, text="knee", hybrid=True, k=5))
    assert all(hit["balanced"] is not None for hit in ask(client, text="knee", k=5, where="split = 'test'"))


def test_the_command_shows_both_numbers_and_json_has_everything(home: Path, capsys: Any) -> None:
    words = ["search", str(home / "collection"), "left effusion", "--k", "3", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unbalanced"] is None
    assert all({"score", "similarity", "balanced"} <= set(hit) for hit in found["hits"])
    assert main([*words, "--raw"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert {hit["balanced"] for hit in raw["hits"]} == {None}
    assert main(words[:-1]) == 0
    first = capsys.readouterr().out.splitlines()[0].split()
    assert float(first[1]) == pytest.approx(found["hits"][0]["balanced"], abs=0.006)
    assert float(first[2]) == pytest.approx(found["hits"][0]["similarity"], abs=0.0006)


def test_a_bank_and_a_correction_are_options_of_index(home: Path, tmp_path: Path, capsys: Any) -> None:
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join(f"nodule {number} in the left lung" for number in range(12)))
    words = ["index", str(home / "model"), "--data", str(home / "manifest"), "--out", str(tmp_path / "c"), "--json"]
    assert main([*words, "--bank", str(bank), "--hub_correction", "0.5"]) == 0
    indexed = json.loads(capsys.readouterr().out)
    assert set(indexed["balance"]) == {"image", "text"}
    assert indexed["unbalanced"] is None
    assert len(Searcher.open(tmp_path / "c").collection.balance().asked["text"].vectors) <= 12
    assert len(Searcher.open(tmp_path / "c").search(text="nodule", k=60)) == 2 * NUM_SAMPLES
    assert main([*words, "--hub_correction", "2"]) == 2
    assert "hub_correction is a number from 0" in capsys.readouterr().err
    assert main([*words, "--bank", str(tmp_path / "absent")]) == 2
    assert "is no file; --bank" in capsys.readouterr().err


def test_an_old_collection_answers_by_cosine_and_says_what_to_do(tmp_path: Path, capsys: Any) -> None:
    collection = write_collection_of_images(tmp_path)
    connect(str(collection)).drop_table("balance")  # as `index` of an earlier version left it
    capsys.readouterr()
    assert main(["search", str(collection), "knee", "--json"]) == 0
    said = capsys.readouterr()
    assert {hit["balanced"] for hit in json.loads(said.out)["hits"]} == {None}
    assert "has no balance" in said.err
    assert main(["search", str(collection), "knee", "--raw"]) == 0
    assert "has no balance" not in capsys.readouterr().err
    words = ["index", str(tmp_path / "model"), "--data", str(tmp_path / "manifest"), "--out", str(collection)]
    assert main(words) == 0
    assert main(["search", str(collection), "knee"]) == 0
    assert "has no balance" not in capsys.readouterr().err
