"""What selected cases share, against numbers counted and multiplied out here; and the selection as a CSV."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from small_cases import open_cases
from small_service import LABELS, caption_of, open_searcher

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from starlette.testclient import TestClient

from gapless.search.collection import Pairs
from gapless.search.searcher import Searcher
from gapless.search.selection import csv_of, gap_of, mean_vector, safe_cell, within_cosines
from gapless.server.app import create_app
from gapless.server.schemas import MAX_SELECTED

LOCAL = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return open_searcher(tmp_path_factory.mktemp("selection"))


@pytest.fixture(scope="module")
def client(searcher: Searcher) -> Iterator[TestClient]:
    with TestClient(create_app(searcher), base_url=LOCAL) as client:
        yield client


@pytest.fixture(scope="module")
def ids(client: TestClient) -> dict[int, str]:
    """Number of the sample -> its id."""
    pairs = client.get("/api/map").json()["pairs"]
    return {int(pair["caption"].rpartition(" ")[2]): pair["id"] for pair in pairs}


def shared(client: TestClient, ids: list[Any], code: int = 200) -> Any:
    answer = client.post("/api/selection", json={"ids": ids})
    assert answer.status_code == code, answer.text
    return answer.json() if code == 200 else answer.json()["error"]


def vectors_of(searcher: Searcher, ids: list[str], modality: str) -> np.ndarray:
    return np.array([searcher.collection.vector_of(f"{one}/{modality}") for one in ids], dtype=np.float64)


def test_labels_are_counted_and_set_against_the_collection(client: TestClient, ids: dict[int, str]) -> None:
    samples = [0, 3, 6, 7]
    found = shared(client, [ids[sample] for sample in samples])
    assert found["num_cases"] == found["num_pairs"] == 4
    assert found["modalities"] == {"image": 4, "text": 4}
    values = LABELS["modality_type"]
    counts = Counter(values[sample % 3] for sample in samples)
    assert found["labels"]["modality_type"] == [
        {"value": "CT", "count": counts["CT"], "share": 0.75, "collection_share": pytest.approx(1 / 3)},
        {"value": "MR", "count": 1, "share": 0.25, "collection_share": pytest.approx(1 / 3)},
    ]
    assert sum(one["count"] for one in found["labels"]["view"]) == 4


def test_the_figures_are_those_multiplied_out(client: TestClient, searcher: Searcher, ids: dict[int, str]) -> None:
    chosen = [ids[sample] for sample in (2, 5, 11, 17, 23)]
    found = shared(client, chosen)
    images, texts = (vectors_of(searcher, chosen, name) for name in ("image", "text"))
    cosines = images @ texts.T
    own = np.eye(5, dtype=bool)
    assert found["gap"]["gap/true_pair_cosine"] == pytest.approx(cosines[own].mean(), abs=1e-5)
    assert found["gap"]["gap/margin"] == pytest.approx(cosines[own].mean() - cosines[~own].mean(), abs=1e-5)
    difference = images - texts
    noise = np.square(difference - difference.mean(axis=0)).sum() / (5 * 4)
    unbiased = np.sqrt(max(0, np.square(difference.mean(axis=0)).sum() - noise))
    assert found["gap"]["gap/centroid_distance_unbiased"] == pytest.approx(unbiased, abs=1e-5)
    assert found["within_cosine"]["image"] == pytest.approx((images @ images.T)[~own].mean(), abs=1e-5)
    figures = client.get("/api/map").json()["figures"]
    assert found["collection_gap"] == {key: figures[key] for key in found["gap"]}
    mean = (images + texts) / np.linalg.norm(images + texts, axis=1, keepdims=True)
    direction = mean.sum(axis=0) / np.linalg.norm(mean.sum(axis=0))
    everything = vectors_of(searcher, list(ids.values()), "text") @ direction
    best = np.sort(everything)[::-1][:5]
    assert [text["score"] for text in found["texts"]] == pytest.approx(best.tolist(), abs=1e-5)
    assert {text["modality"] for text in found["texts"]} == {"text"}


def test_two_cases_have_the_cosine_of_the_two_and_one_has_none(
    client: TestClient, searcher: Searcher, ids: Any
) -> None:
    two = [ids[4], ids[9]]
    first, second = vectors_of(searcher, two, "image")
    assert shared(client, two)["within_cosine"]["image"] == pytest.approx(float(first @ second), abs=1e-6)
    alone = shared(client, two[:1])
    assert alone["within_cosine"] == alone["gap"] == {}
    assert alone["texts"]


def test_an_id_twice_counts_once_and_an_unknown_one_is_named(client: TestClient, ids: dict[int, str]) -> None:
    found = shared(client, [ids[1], "nobody", ids[1]])
    assert (found["num_cases"], found["absent"]) == (1, ["nobody"])
    assert "none of these cases" in shared(client, ["nobody"], 404)


@pytest.mark.parametrize("given", [[], [1], ["x"] * (MAX_SELECTED + 1), ["\ud800"], [None], ["x" * 1001]])
def test_what_is_no_selection_is_refused_in_a_sentence(client: TestClient, given: list[Any]) -> None:
    body = json.dumps({"ids": given})
    for route in ("/api/selection", "/api/selection/csv"):
        answer = client.post(route, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert set(answer.json()) == {"error"}


def test_the_csv_has_a_line_for_each_case(client: TestClient, ids: dict[int, str]) -> None:
    answer = client.post("/api/selection/csv", json={"ids": [ids[7], ids[2]]})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    first, second = csv.DictReader(io.StringIO(answer.text))
    assert (first["id"], first["caption"], first["modalities"]) == (ids[7], caption_of(7), "image text")
    assert (second["id"], second["group"], second["view"]) == (ids[2], "case 1", LABELS["view"][2])
    assert second["modality_type"] == ""


def pairs_of(vectors: dict[str, list[list[float]]], captions: list[str | None]) -> Pairs:
    arrays = {name: np.array(rows, dtype=np.float32) for name, rows in vectors.items()}
    count = len(captions)
    return Pairs(
        ids=[f"=s{n}" for n in range(count)],
        vectors=arrays,
        present={name: np.linalg.norm(rows, axis=1) > 0 for name, rows in arrays.items()},
        captions=captions,
        labels={"age": ["-3", "+x"][:count]},
        groups=[None] * count,
        thumbnails=[None] * count,
    )


def test_formulas_do_not_leave_as_formulas() -> None:
    pairs = pairs_of({"image": [[1, 0], [0, 1]]}, ['=HYPERLINK("http://x")', 'said "no", then\nyes'])
    rows = list(csv.reader(io.StringIO(csv_of(pairs))))
    assert rows[1] == ["=s0", "image", "", '\'=HYPERLINK("http://x")', "-3"]
    assert rows[2] == ["=s1", "image", "", 'said "no", then\nyes', "'+x"]
    assert [safe_cell(value) for value in ("@a", "\tb", "-", "-1e3", "a=b")] == ["'@a", "'\tb", "'-", "-1e3", "a=b"]


def test_rows_that_cancel_out_have_no_mean_and_one_modality_has_no_gap() -> None:
    opposite = pairs_of({"image": [[1, 0], [-1, 0]]}, [None, None])
    assert mean_vector(opposite) is None
    assert gap_of(opposite) == {}
    assert within_cosines(opposite) == {"image": pytest.approx(-1)}
    unequal = pairs_of({"image": [[1, 0], [0, 1]], "text": [[1, 0], [0, 0]]}, [None, None])
    assert mean_vector(unequal) == pytest.approx(np.array([1, 1]) / np.sqrt(2))


def test_cases_that_lack_modalities_are_measured_on_what_they_have(tmp_path: Any) -> None:
    with TestClient(create_app(open_cases(tmp_path)), base_url=LOCAL) as client:
        pairs = client.get("/api/map").json()["pairs"]
        found = shared(client, [pair["id"] for pair in pairs])
        assert found["num_pairs"] == len(pairs)
        assert min(found["modalities"].values()) < len(pairs)
        assert set(found["gap"]) == {"gap/centroid_distance_unbiased", "gap/true_pair_cosine", "gap/margin"}
