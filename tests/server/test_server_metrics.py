"""`/metrics`: the counts are those of what was asked, and no word of a request is among them."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from small_service import caption_of, open_searcher, pixels_of, png_of

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from fastapi import FastAPI
from starlette.testclient import TestClient
from test_server_hostile import Attacker, send

from gapless import __version__
from gapless.core.errors import DataRefused
from gapless.search.searcher import Searcher
from gapless.server.app import create_app
from gapless.server.prometheus import BUCKETS, Figures, Measured

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? ([0-9.e+-]+)')
Sample = tuple[str, frozenset[tuple[str, str]]]


def samples_of(text: str) -> dict[Sample, float]:
    """Name and labels -> value; every line must be a comment or a sample, and none may come twice."""
    found: dict[Sample, float] = {}
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        name, labels, value = match.groups()
        key = name, frozenset(re.findall(r'([a-z]+)="([^"]*)"', labels or ""))
        assert key not in found, line
        found[key] = float(value)
    return found


def value(found: dict[Sample, float], name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return open_searcher(tmp_path_factory.mktemp("metrics"))


@pytest.fixture
def client(searcher: Searcher) -> Iterator[TestClient]:
    with TestClient(create_app(searcher), base_url="http://127.0.0.1:8765") as client:
        yield client


def test_what_was_asked_is_what_is_counted(client: TestClient, searcher: Searcher) -> None:
    image = {"image": ("x.png", png_of(pixels_of(3)), "image/png")}
    row = "images/3.png/image"
    for _ in range(3):
        client.post("/api/search", json={"text": caption_of(1)})
    client.post("/api/search", json={"like": row})
    client.post("/api/search", json={"vector": searcher.embed("cyst").tolist()})
    client.post("/api/search", json={"parts": {"text": "cyst"}})
    client.post("/api/search/upload", files=image)
    client.post("/api/search", json={"text": caption_of(1), "k": 0})
    client.post("/api/search", json={"like": "nobody/image"})
    client.get("/healthz", headers={"host": "evil.example"})
    client.get("/nothing/here")
    client.get(f"/api/thumbnail?row={row}")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples_of(answer.text)
    requests = {
        ("/api/search", "200"): 6,
        ("/api/search", "400"): 1,
        ("/api/search", "404"): 1,
        ("/api/search/upload", "200"): 1,
        ("/api/thumbnail", "200"): 1,
        ("none", "400"): 1,
        ("none", "404"): 1,
    }
    counted = {
        tuple(dict(labels)[x] for x in ("route", "status")): n
        for (name, labels), n in found.items()
        if name == "gapless_requests_total"
    }
    assert counted == requests
    assert value(found, "gapless_refusals_total") == 4
    ways = {"words": 3, "like": 1, "vector": 1, "parts": 1, "files": 1}
    assert {way: value(found, "gapless_queries_total", by=way) for way in ways} == ways
    assert value(found, "gapless_in_flight") == 0
    assert value(found, "gapless_waiting") == 0
    assert value(found, "gapless_collection_rows") == searcher.collection.count() == 60
    assert value(found, "gapless_collection_version") == searcher.collection.table_version().number
    assert value(found, "gapless_info", version=__version__) == 1
    assert value(found, "gapless_request_seconds_count", route="/api/search") == 8
    again = samples_of(client.get("/metrics").text)
    assert value(again, "gapless_requests_total", route="/metrics", status="200") == 1


def test_the_times_fall_into_their_buckets() -> None:
    figures = Figures()
    for seconds in (0.001, 0.005, 0.0051, 0.3, 99.0):
        figures.begin()
        figures.end("/x", "200", seconds)
    figures.begin()  # the one that asks
    figures.begin()
    found = samples_of("\n".join(figures.lines()))
    at_most = {"0.005": 2, "0.01": 3, "0.25": 3, "0.5": 4, "10.0": 4, "+Inf": 5}
    assert {le: value(found, "gapless_request_seconds_bucket", route="/x", le=le) for le in at_most} == at_most
    assert value(found, "gapless_request_seconds_sum", route="/x") == pytest.approx(99.3111)
    assert value(found, "gapless_in_flight") == 1


def test_prometheus_own_parser_reads_it(client: TestClient) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    client.post("/api/search", json={"text": "cyst"})
    families = {one.name: one for one in parser.text_string_to_metric_families(client.get("/metrics").text)}
    assert families["gapless_requests"].type == "counter"
    assert families["gapless_request_seconds"].type == "histogram"
    labels = {"route": "/api/search", "le": "+Inf"}
    (count,) = [one.value for one in families["gapless_request_seconds"].samples if one.labels == labels]
    assert count == 1


def test_a_collection_out_of_reach_still_gives_the_counts(client: TestClient, searcher: Searcher, monkeypatch) -> None:
    def broken() -> int:
        raise DataRefused("s3://bucket/patients cannot be read")

    client.get("/healthz")
    monkeypatch.setattr(searcher.collection, "count", broken)
    found = samples_of(client.get("/metrics").text)
    assert value(found, "gapless_collection_up") == 0
    assert value(found, "gapless_collection_rows") is None
    assert value(found, "gapless_requests_total", route="/healthz", status="200") == 1


# --- nothing of a request -----------------------------------------------------------------------------------------


def strangers(text: str, app: FastAPI) -> list[str]:
    """Values of labels that do not come from the source: routes, statuses, ways of asking, bounds, the version."""
    own = {getattr(route, "path", "") for route in app.routes}
    own |= {"none", "words", "parts", "files", "vector", "like", "+Inf", __version__, *map(str, BUCKETS)}
    own |= {str(status) for status in (200, 400, 403, 404, 405, 413, 415, 429, 500, 503)}
    values = {shown for line in text.splitlines() for shown in re.findall(r'="((?:[^"\\]|\\.)*)"', line)}
    return sorted(values - own)


async def asked(app: Any, count: int) -> tuple[Counter[int], str]:
    """The statuses of hostile requests, and what `/metrics` says after them."""
    attacker, statuses = Attacker(5), Counter[int]()
    words = {"text": "SECRETWORD", "where": "id = 'SECRETWORD'", "labels": {"SECRETWORD": "SECRETWORD"}}
    calls = [attacker.draw() for _ in range(count)]
    for name, said in words.items():
        body = json.dumps({name: said}).encode()
        calls.append({"path": "/api/search", "method": "POST", "body": body, "type": "application/json"})
    calls.append({"path": "/api/case", "query": "id=SECRETWORD"})
    calls.append({"path": "/static/SECRETWORD"})
    calls.append({"path": "/SECRETWORD", "method": "SECRETWORD", "headers": [("x-secretword", "SECRETWORD")]})
    for call in calls:
        statuses[(await send(app, call))[0]] += 1
    return statuses, (await send(app, {"path": "/metrics"}))[2].decode()


def test_no_word_of_hostile_requests_is_shown(searcher: Searcher) -> None:
    app = create_app(searcher)
    statuses, text = asyncio.run(asked(app, 600))
    found = samples_of(text)
    assert strangers(text, app) == []
    assert "secretword" not in text.lower()
    counted: Counter[int] = Counter()
    for (name, labels), count in found.items():
        if name == "gapless_requests_total":
            counted[int(dict(labels)["status"])] += int(count)
    assert counted == statuses
    assert len(statuses) >= 5


def test_the_control_that_counts_by_address_shows_words(searcher: Searcher) -> None:
    app = create_app(searcher)
    figures = Figures()

    async def by_address(scope: Any, receive: Any, send: Any) -> None:
        class Address:
            path = scope["path"]

        await app(scope, receive, send)
        scope["route"] = Address

    _, _ = asyncio.run(asked(Measured(by_address, figures), 5))
    text = "\n".join(figures.lines())
    assert "SECRETWORD" in text
    assert strangers(text, app)
