"""Words and an image count the same as shorthands and as parts of a query, by Python and by the API."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cases import open_cases
from small_service import pixels_of, png_of

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from starlette.testclient import TestClient

from gapless.core.errors import UsageError
from gapless.search.arguments import inputs_of
from gapless.search.searcher import Searcher
from gapless.server.app import create_app

WORDS = "left effusion"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return open_cases(tmp_path_factory.mktemp("shorthands"))


@pytest.fixture(scope="module")
def client(searcher: Searcher) -> Any:
    with TestClient(create_app(searcher), base_url="http://127.0.0.1:8765") as client:
        yield client


def weights_of(*given: Any, **options: Any) -> dict[str, float]:
    return inputs_of(*given, **options)[1]


def test_the_share_of_the_image_counts_however_the_two_are_given() -> None:
    expected = weights_of("cyst", b"x", 0.75)
    assert expected == {"text": 0.25, "image": 0.75}
    assert weights_of(None, b"x", 0.75, {"text": "cyst"}) == expected
    assert weights_of("cyst", None, 0.75, {"image": b"x"}) == expected
    assert weights_of(None, None, 0.75, {"text": "cyst", "image": b"x"}) == expected
    report = weights_of(None, b"x", 0.75, {"report": "cyst", "labs": "a=1"}, words_as="report")
    assert report == {"report": 0.5, "image": 1.5}, "beside labs of 1, twice the shares"


@pytest.mark.parametrize("inputs", [{"labs": "a=1"}, {"image": b"x", "labs": "a=1"}, {"text": "cyst"}])
def test_a_share_of_what_is_not_in_the_query_is_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"image_weight 0\.8 is the share of the part 'image' beside 'text'.*--weight"):
        inputs_of(None, None, 0.8, inputs)
    assert weights_of(None, None, 0.8, inputs, dict.fromkeys(inputs, 2.0)) == dict.fromkeys(inputs, 2.0)
    assert weights_of(None, None, 0.5, inputs) == {}


def test_a_query_of_parts_is_the_vector_of_the_shorthands(searcher: Searcher) -> None:
    image = pixels_of(4, 96)
    expected = searcher.embed(WORDS, image, 0.8)
    np.testing.assert_array_equal(searcher.embed(None, image, 0.8, query={"text": WORDS}), expected)
    np.testing.assert_array_equal(searcher.embed(image_weight=0.8, query={"image": image, "text": WORDS}), expected)
    assert not np.allclose(searcher.embed(WORDS, image), expected)


def upload(client: TestClient, **query: Any) -> Any:
    files = {"image": ("x.png", png_of(pixels_of(4, 96))), "query": (None, json.dumps(query))}
    return client.post("/api/search/upload", files=files).json()["hits"]


def test_the_api_takes_the_share_for_words_among_the_parts(client: TestClient) -> None:
    by_shorthand = upload(client, text=WORDS, image_weight=0.9, k=30)
    assert upload(client, parts={"text": WORDS}, image_weight=0.9, k=30) == by_shorthand
    assert upload(client, text=WORDS, k=30) != by_shorthand


def test_hybrid_words_may_be_a_part_everywhere(client: TestClient, searcher: Searcher) -> None:
    expected = [(hit.row, round(hit.score, 5)) for hit in searcher.search(text=WORDS, hybrid=True, k=8)]
    by_part = searcher.search(query={"text": WORDS}, hybrid=True, k=8)
    assert [(hit.row, round(hit.score, 5)) for hit in by_part] == expected
    for asked in ({"text": WORDS}, {"parts": {"text": WORDS}}):
        hits = client.post("/api/search", json={**asked, "hybrid": True, "k": 8}).json()["hits"]
        assert [(hit["row"], round(hit["score"], 5)) for hit in hits] == expected


def test_hybrid_without_words_is_one_sentence_everywhere(client: TestClient, searcher: Searcher) -> None:
    with pytest.raises(UsageError, match="a hybrid search needs words") as refused:
        searcher.search(query={"labs": "age=34"}, hybrid=True)
    answer = client.post("/api/search", json={"parts": {"labs": "age=34"}, "hybrid": True})
    assert (answer.status_code, answer.json()["error"]) == (400, str(refused.value))


def test_hybrid_words_of_a_file_are_its_text(client: TestClient, tmp_path: Path) -> None:
    files = {"text": ("x.txt", WORDS.encode()), "query": (None, '{"hybrid": true, "k": 8}')}
    by_file = client.post("/api/search/upload", files=files).json()["hits"]
    assert by_file == client.post("/api/search", json={"text": WORDS, "hybrid": True, "k": 8}).json()["hits"]
