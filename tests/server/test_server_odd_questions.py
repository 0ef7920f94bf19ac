"""Odd arguments of a search, through Python, the API and the command: each a sentence about the argument.

None of them may say that the collection is damaged, which is advice to throw it away. A query that the model reads only
in part says so, everywhere.
"""

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_service import open_searcher, pixels_of, png_of

from gapless.cli.main import main
from gapless.core.errors import DataRefused, UsageError
from gapless.search.query_length import QueryCut
from gapless.search.searcher import Searcher

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from starlette.testclient import TestClient

from gapless.server.app import create_app

HALF = "left \udc9d effusion"
LONG = "left pleural effusion with a small nodule " * 40


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


@pytest.fixture(scope="module")
def searcher(home: Path) -> Searcher:
    return open_searcher(home)


@pytest.fixture(scope="module")
def client(searcher: Searcher) -> Iterator[TestClient]:
    with TestClient(create_app(searcher), base_url="http://127.0.0.1") as client:
        yield client


COUNTS = [0, -1, 2.5, 3.0, "3", True, None, [3], float("nan"), float("inf"), 1 + 0j]
WEIGHTS = [-0.1, 1.1, float("nan"), float("inf"), "half", None, True, [1]]
WORDS = ["", "   ", "\n\t", "\u200b\u200e", "\x00\x01", 5, b"mass", ["mass"], HALF]
IMAGES = [5, [1], "", "a\x00b", np.zeros((4, 4)), np.zeros((0, 4), np.uint8), np.zeros((4, 4, 2), np.uint8)]


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("k", COUNTS)
def test_an_odd_number_of_hits_is_a_sentence_about_k(searcher: Searcher, k: Any, hybrid: bool) -> None:
    with pytest.raises(UsageError, match=r"^k is a whole number of hits and at least 1, got "):
        searcher.search(text="effusion", k=k, hybrid=hybrid)
    with pytest.raises(UsageError, match=r"^k is"):
        searcher.collection.search(searcher.embed("effusion"), k=k)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("k", [1, 59, 60, 61, 2**31, 2**63, 10**40, np.int32(3), np.uint64(2**63)])
def test_any_whole_number_of_hits_gives_so_many_or_all(searcher: Searcher, k: Any, hybrid: bool) -> None:
    assert len(searcher.search(text="effusion", k=k, hybrid=hybrid)) == min(int(k), 60)


@pytest.mark.parametrize("words", WORDS, ids=repr)
def test_odd_words_are_a_sentence(searcher: Searcher, words: Any) -> None:
    for call in (searcher.embed, lambda text: searcher.search(text=text, hybrid=True), searcher.cut):
        with pytest.raises(UsageError, match="quer") as error:
            call(words)
        assert not isinstance(error.value, DataRefused)


@pytest.mark.parametrize("words", ["mass \U0001f600", "\x00mass", "mass\ufeff", "ma\u0301ss", "m" * 500, "\uffff mass"])
def test_unusual_words_are_searched(searcher: Searcher, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QueryCut)
        assert len(searcher.search(text=words, k=3, hybrid=True)) == 3


def test_the_model_alone_would_fail_on_half_a_character(searcher: Searcher) -> None:
    """The control: what the check stands before."""
    with pytest.raises(TypeError):
        searcher.encode("text", [HALF])


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(type(image).__name__))
def test_an_odd_image_is_a_sentence(searcher: Searcher, image: Any) -> None:
    with pytest.raises(UsageError, match=r"image|pixels"):
        searcher.search(image=image)


@pytest.mark.parametrize("image", ["nothing.png", Path("nothing.png"), b"", b"no image", "."])
def test_an_image_that_cannot_be_read_is_refused_by_name(searcher: Searcher, image: Any) -> None:
    with pytest.raises(DataRefused, match="cannot be searched with") as error:
        searcher.search(image=image)
    assert "damaged" not in str(error.value)


def test_paths_bytes_and_pixels_of_one_image_find_the_same(searcher: Searcher, home: Path) -> None:
    (home / "one.png").write_bytes(png_of(pixels_of(4)))
    forms = [home / "one.png", str(home / "one.png"), png_of(pixels_of(4)), pixels_of(4)]
    found = [[(hit.row, hit.score) for hit in searcher.search(image=image, k=5)] for image in forms]
    assert found == [found[0]] * 4


@pytest.mark.parametrize("weight", WEIGHTS)
def test_an_odd_weight_is_a_sentence(searcher: Searcher, weight: Any) -> None:
    with pytest.raises(UsageError, match=r"^image_weight is a number from 0"):
        searcher.search(text="mass", image=pixels_of(1), image_weight=weight)


def test_odd_modalities_keys_and_vectors_are_sentences(searcher: Searcher) -> None:
    collection = searcher.collection
    for modality in ("Image", "", 5, ["image"]):
        with pytest.raises(UsageError, match="unknown modality"):
            searcher.search(text="mass", modality=modality)  # type: ignore[arg-type]
    for row in (5, None, b"x", HALF):
        for call in (collection.get, collection.vector_of, collection.thumbnail_of):
            with pytest.raises(UsageError, match="named by its key"):
                call(row)  # type: ignore[arg-type]
    for vector in ("words", None, [1, "a"], [[1.0], [2.0, 3.0]], [float("nan")] * 24, np.zeros(24), np.ones(24)):
        with pytest.raises(UsageError, match="vector"):
            collection.search(vector)  # type: ignore[arg-type]


ODD_QUERIES: list[tuple[Any, str]] = [
    *(({"text": "mass", "k": k}, "^k: ") for k in (0, -1, 2.5, "3", True, None, 10**30)),
    *(({"text": "mass", "image_weight": weight}, "^image_weight: ") for weight in (-1, 2, "0.5", None, True)),
    *(({"text": words}, "the query is empty") for words in ("", " ", "\u200b", "\x00")),
    *(({"text": words}, "^text: ") for words in (5, ["a"], "x" * 3000, HALF)),
    *(({name: HALF, "text": "mass"}, f"^{name}: .*surrogate") for name in ("modality", "where")),
    ({"like": HALF}, "^like: .*surrogate"),
    *(({"text": "mass", "labels": {"view": value}}, "^labels.view: ") for value in (None, True, [1], HALF)),
    ({"text": "mass", "labels": {"veiw": "axial"}}, "unknown label 'veiw'; known: .*view"),
    ({"text": "mass", "offset": 10}, "^offset: no field of a query"),
    ({"text": "mass", "wher": "view = 'axial'"}, "did you mean 'where'"),
    ({"text": "mass", "where": "view > 5"}, "view holds text"),
    ({"text": "mass", "where": "veiw = 'axial'"}, "unknown field 'veiw' .*did you mean 'view'"),
    ({"vector": [1, 2]}, "unit-norm vector of 24 numbers"),
    ({}, "ask with words"),
    ("{", "no JSON"),
    ('{"text": "mass", "k": NaN}', "^k: "),
]


@pytest.mark.parametrize(("query", "sentence"), ODD_QUERIES)
def test_the_api_refuses_in_one_sentence(client: TestClient, query: Any, sentence: str) -> None:
    content = query if isinstance(query, str) else json.dumps(query)
    answer = client.post("/api/search", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert re.search(sentence, answer.json()["error"]), answer.text
    assert "damaged" not in answer.text
    assert "constrained" not in answer.text


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_query_that_is_cut_says_so_everywhere(
    searcher: Searcher, client: TestClient, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = searcher.model.tokenizers["text"]
    tokens, read = len(tokenizer(LONG)["input_ids"]), 32
    with pytest.warns(QueryCut, match=f"{tokens:,} tokens and the model reads the first {read}") as caught:
        hits = searcher.search(text=LONG, k=3)
    assert len(caught) == 1
    assert len(hits) == 3
    answer = strict(client.post("/api/search", json={"text": LONG}).text)
    assert answer["cut"] == {"tokens": tokens, "read": read}
    assert main(["search", str(home / "collection"), LONG, "--json"]) == 0
    said = capsys.readouterr()
    assert strict(said.out)["cut"] == {"tokens": tokens, "read": read}
    assert f"gapless: the query has {tokens:,} tokens" in said.err
    # the rest is indeed left out: other words there change nothing
    with pytest.warns(QueryCut):
        other = searcher.search(text=LONG + "and a fracture", k=3)
    assert [(hit.row, hit.score) for hit in other] == [(hit.row, hit.score) for hit in hits]


def test_a_query_that_fits_says_nothing(
    searcher: Searcher, client: TestClient, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: up to the last token that is read."""
    tokenizer = searcher.model.tokenizers["text"]
    words = "mass"
    while len(tokenizer(f"{words} mass")["input_ids"]) <= 32:
        words += " mass"
    searcher.search(text=words, k=1)  # a warning would be an error here
    assert searcher.cut(words) is None
    assert searcher.cut(f"{words} mass") is not None
    assert client.post("/api/search", json={"text": words}).json()["cut"] is None
    assert client.post("/api/search", json={"vector": [1.0] * 24}).json()["cut"] is None
    capsys.readouterr()
    assert main(["search", str(home / "collection"), words, "--json"]) == 0
    said = capsys.readouterr()
    assert strict(said.out)["cut"] is None
    assert "gapless:" not in said.err


def test_counting_leaves_the_models_tokenizer_as_it_is(searcher: Searcher) -> None:
    """A tokenizer that counts does not cut; the model's own must go on cutting."""
    before = searcher.embed("mass")
    for _ in range(3):
        searcher.cut(LONG)
        with pytest.warns(QueryCut):
            searcher.embed(LONG)
    np.testing.assert_array_equal(searcher.embed("mass"), before)


def test_a_query_of_a_hundred_thousand_characters_is_answered(searcher: Searcher) -> None:
    with pytest.warns(QueryCut):
        assert len(searcher.search(text="effusion " * 12_000, k=3, hybrid=True)) == 3


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["effusion", "--where", "view > 5"], 2, "view holds text"),
        (["effusion", "--modality", "smell"], 2, "unknown modality 'smell'"),
        (["   "], 2, "the query is empty"),
        ([HALF], 2, "half of a surrogate pair"),
        (["--image", "nothing.png"], 3, "nothing.png cannot be searched with"),
        (["effusion", "--where", f"view = '{HALF}'"], 2, "surrogate"),
        ([], 2, "needs words, an image, or both"),
    ],
)
def test_the_command_refuses_in_one_sentence(
    searcher: Searcher, home: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    assert main(["search", str(home / "collection"), *words]) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gapless: ")
    assert sentence in said
    assert "damaged" not in said
