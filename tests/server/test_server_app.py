"""The service's API: the same answers as the searcher, one sentence for every refusal, nothing kept, nothing told."""

import asyncio
import io
import json
import logging
import re
import sys
import tempfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_service import NUM_SAMPLES, caption_of, open_searcher, pixels_of, png_of

from gapless.core.errors import DataRefused, UsageError
from gapless.metrics.measure import measure
from gapless.metrics.projection import principal_plane

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from gapless.search import overview
from gapless.search.searcher import Searcher
from gapless.server.app import SCRIPTS, create_app
from gapless.server.guard import MAX_BODY

LOCAL = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return open_searcher(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def app(searcher: Searcher) -> FastAPI:
    return create_app(searcher)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def ask(client: TestClient, code: int = 200, **query: Any) -> Any:
    answer = client.post("/api/search", json=query)
    assert answer.status_code == code, answer.text
    return answer.json()["hits" if code == 200 else "error"]


def upload(client: TestClient, content: bytes, code: int = 200, **query: Any) -> Any:
    files = {"image": ("../../x.png", content, "image/png"), "query": (None, json.dumps(query))}
    answer = client.post("/api/search/image", files=files)
    assert answer.status_code == code, answer.text
    return answer.json()["hits" if code == 200 else "error"]


def rows_and_scores(hits: Any) -> list[tuple[str, float]]:
    found = [hit if isinstance(hit, dict) else vars(hit) for hit in hits]
    return [(hit["row"], pytest.approx(hit["score"], abs=1e-6)) for hit in found]


def test_words_find_what_the_searcher_finds(client: TestClient, searcher: Searcher) -> None:
    hits = ask(client, text="left pleural effusion", k=7)
    assert rows_and_scores(hits) == rows_and_scores(searcher.search(text="left pleural effusion", k=7))
    assert set(hits[0]) == {
        "row",
        "id",
        "modality",
        "score",
        "similarity",
        "balanced",
        "caption",
        "labels",
        "group",
        "has_thumbnail",
        "preview",
    }
    hybrid = ask(client, text="cyst", k=5, hybrid=True)
    assert rows_and_scores(hybrid) == rows_and_scores(searcher.search(text="cyst", k=5, hybrid=True))
    assert len(ask(client, text="a", k=200)) == 2 * NUM_SAMPLES


def test_images_and_images_with_words_find_what_the_searcher_finds(client: TestClient, searcher: Searcher) -> None:
    pixels = pixels_of(7)
    hits = upload(client, png_of(pixels), k=5)
    assert rows_and_scores(hits) == rows_and_scores(searcher.search(image=pixels, k=5))
    nearest = upload(client, png_of(pixels), k=1, modality="image")[0]
    assert (nearest["caption"], nearest["score"]) == (caption_of(7), pytest.approx(1, abs=1e-5))
    for weight in (0, 0.3, 1):
        both = upload(client, png_of(pixels), text="knee", image_weight=weight)
        expected = searcher.search(text="knee", image=pixels, image_weight=weight, k=24)
        assert rows_and_scores(both) == rows_and_scores(expected)


def test_a_vector_is_a_query_whatever_its_length(client: TestClient, searcher: Searcher) -> None:
    vector = searcher.embed("chest radiograph")
    expected = rows_and_scores(searcher.collection.search(vector, k=5, balanced={}))
    for factor in (1, 1e30, 1e-30):
        hits = ask(client, vector=(vector.astype(float) * factor).tolist(), k=5)
        assert rows_and_scores(hits) == expected


def test_more_like_this_is_near_it_and_leaves_it_out(client: TestClient, searcher: Searcher) -> None:
    row = ask(client, text="knee", k=1, modality="image")[0]["row"]
    vector = searcher.collection.vector_of(row)
    assert vector is not None
    expected = [hit for hit in searcher.collection.search(vector, k=6, balanced={"image": 1.0}) if hit.row != row]
    assert rows_and_scores(ask(client, like=row, k=5)) == rows_and_scores(expected[:5])
    assert len(ask(client, like=row, k=5, modality="text")) == 5


def test_filters_hold_together_and_alone(client: TestClient) -> None:
    hits = ask(client, text="x", k=200, modality="text", labels={"modality_type": "CT", "finding site": "it's here"})
    wanted = {caption_of(sample) for sample in range(NUM_SAMPLES) if sample % 3 == 0 and sample % 4 == 0}
    assert {hit["caption"] for hit in hits} == wanted
    assert {hit["modality"] for hit in hits} == {"text"}
    narrowed = ask(client, text="x", k=200, where="split = 'test' OR split = 'train'", labels={"modality_type": "MR"})
    assert len(narrowed) == 2 * NUM_SAMPLES // 3
    assert all(hit["labels"]["modality_type"] == "MR" for hit in narrowed)
    assert ask(client, text="x", where="split = 'nowhere'") == []
    taught = ask(client, text="x", k=200, labels={"source": "teaching"})
    assert {hit["caption"] for hit in taught} == {caption_of(sample) for sample in range(1, NUM_SAMPLES, 2)}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "empty words": ({"text": "  "}, "the query is empty"),
    "nothing": ({}, "ask with words"),
    "two ways": ({"text": "x", "like": "y"}, "one of these"),
    "hybrid without words": ({"vector": [1.0], "hybrid": True}, "needs words"),
    "k of 0": ({"text": "x", "k": 0}, "^k: "),
    "k too large": ({"text": "x", "k": 10**30}, "^k: "),
    "weight": ({"text": "x", "image_weight": 1.5}, "^image_weight: "),
    "unknown key": ({"text": "x", "url": "http://example.org"}, "^url: "),
    "unknown modality": ({"text": "x", "modality": "smell"}, "known: image, text"),
    "unknown label": (
        {"text": "x", "labels": {"smell": "x"}},
        "known: finding site, modality_type, source",
    ),
    "unknown field": ({"text": "x", "where": "smell = 'x'"}, "unknown field 'smell'.*fields: id, modality"),
    "broken filter": ({"text": "x", "where": "split ="}, "filter"),
    "second statement": ({"text": "x", "where": "split = 'a'; DROP TABLE rows"}, "';' cannot be part"),
    "open parentheses": ({"text": "x", "where": "split = 'a') OR (split = 'b'"}, "parentheses"),
    "wrong size": ({"vector": [1.0, 2.0]}, "24 numbers"),
    "no length": ({"vector": [0.0] * 24}, "length of 0"),
    "words too long": ({"text": "x" * 2001}, "^text: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_query_is_refused_in_one_sentence(case: str, client: TestClient) -> None:
    query, sentence = REFUSED[case]
    told = ask(client, 400, **query)
    assert re.search(sentence, told), told
    assert "\n" not in told


def test_numbers_that_are_none_and_halves_of_characters_are_refused(client: TestClient) -> None:
    for body, sentence in (
        ('{"text": "x", "image_weight": NaN}', "finite"),
        ('{"vector": [1, Infinity]}', "finite"),
        ('{"vector": [1e999]}', "finite"),
        ('{"text": "\\ud800"}', "^text: "),
        ("[" * 100_000, "."),
    ):
        answer = client.post("/api/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text
        assert re.search(sentence, answer.json()["error"])


def bomb() -> bytes:
    """A PNG that says it is 60,000 pixels square."""
    content = bytearray(png_of(np.zeros((2, 2), np.uint8)))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


def test_images_that_cannot_be_used_are_refused(client: TestClient) -> None:
    whole = png_of(np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8))
    strip = png_of(np.zeros((1, 500), np.uint8))
    for content, sentence in (
        (b"", "the file is empty"),
        (b"no image", "not an image of an allowed format"),
        (whole[: len(whole) // 2], "unreadable image"),
        (bomb(), "too many pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (strip, "500 x 1: one side is more than 20 times the other"),
    ):
        assert sentence in upload(client, content, 400)


def test_other_forms_are_refused(client: TestClient) -> None:
    png = png_of(pixels_of(1))
    for arguments, code in (
        ({"content": png, "headers": {"content-type": "image/png"}}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400),
        ({"files": {"image": (None, "words")}}, 400),
        ({"files": {"image": ("a", png), "other": (None, "x")}}, 400),
        ({"files": [("image", ("a", png)), ("image", ("b", png))]}, 400),
        ({"files": {"image": ("a", png), "query": (None, "{")}}, 400),
        ({"files": {"image": ("a", png), "query": (None, '{"like": "x"}')}}, 400),
    ):
        answer = client.post("/api/search/image", **arguments)
        assert (answer.status_code, list(answer.json())) == (code, ["error"]), arguments


def call(app: Any, path: str, chunks: Iterator[bytes], headers: dict[str, str]) -> tuple[int, bytes]:
    """One POST straight at the ASGI door, its body made only as fast as it is read."""
    said: dict[str, Any] = {"body": b""}
    names = {"host": "127.0.0.1", **headers}.items()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in names],
    }

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: dict[str, Any]) -> None:
        said["status"] = message.get("status", said.get("status"))
        said["body"] += message.get("body", b"")

    asyncio.run(app(scope, receive, send))
    return said["status"], said["body"]


FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'


@pytest.mark.parametrize("is_declared", [True, False])
def test_50_megabytes_are_refused_without_being_held(app: FastAPI, is_declared: bool) -> None:
    def body() -> Iterator[bytes]:
        yield FORM_HEAD
        for _ in range(50):
            yield bytes(1_000_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    headers |= {"content-length": str(50_000_000 + len(FORM_HEAD))} if is_declared else {}
    tracemalloc.start()
    status, told = call(app, "/api/search/image", body(), headers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (status, json.loads(told)) == (413, {"error": "the request is larger than 20 MB"})
    assert peak < (6e6 if is_declared else 50e6)


def test_a_body_that_would_never_end_is_cut(app: FastAPI) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1_000_000)

    assert call(app, "/api/search", endless(), {"content-type": "application/json"})[0] == 413
    huge = {"content-type": "application/json", "content-length": str(10**15)}
    assert call(app, "/api/search", endless(), huge)[0] == 413
    assert MAX_BODY == 1 << 20


class Opened:
    """Files that Python opened for writing, or made, while it watches; an audit hook stays, so it can be switched."""

    def __init__(self) -> None:
        self.watching = False
        self.paths: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching or event not in ("open", "tempfile.mkstemp"):
            return
        flags = arguments[2] if event == "open" else 1
        if isinstance(flags, int) and flags & 3:
            self.paths.append(str(arguments[0]))


def test_an_upload_is_never_a_file(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large = png_of(np.random.default_rng(0).integers(0, 255, (1900, 1900), dtype=np.uint8))
    assert len(large) > 3_000_000
    opened = Opened()
    opened.watching = True
    upload(client, large, k=1)
    assert opened.paths == []

    naive = FastAPI()

    @naive.post("/")
    async def keep(request: Request) -> int:
        async with request.form() as form:
            return len(form)

    with TestClient(naive) as other:
        assert other.post("/", files={"image": ("x", large)}).json() == 1
    opened.watching = False
    assert any(str(tmp_path) in path for path in opened.paths), "the control: a plain form goes to the disk"


def test_nobody_reads_what_was_asked(
    searcher: Searcher,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = create_app(searcher)
    with TestClient(app, base_url=LOCAL) as client:
        ask(client, text="SECRET knee")
        ask(client, 400, text="SECRET", where="SECRET = 'x'")

        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("SECRET words in the engine's message")

        monkeypatch.setattr(searcher.collection, "search", fail)
        answer = client.post("/api/search", json={"text": "SECRET knee"})
    assert (answer.status_code, answer.json()) == (500, {"error": "the service failed; its terminal says where"})
    told = capfd.readouterr()
    assert "RuntimeError while answering" in told.err
    assert "fail" in told.err
    assert "SECRET" not in told.out + told.err + caplog.text


def test_thumbnails_come_by_row_and_by_nothing_else(client: TestClient, searcher: Searcher) -> None:
    hit = ask(client, text="x", k=1, modality="image")[0]
    answer = client.get("/api/thumbnail", params={"row": hit["row"]})
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == searcher.collection.thumbnail_of(hit["row"])
    assert Image.open(io.BytesIO(answer.content)).size == (24, 24)
    manifest = Path(searcher.collection.uri).parent / "images" / "0.png"
    for row in (hit["id"], f"{hit['id']}/text", "../model/config.json", str(manifest), "", "\x00", "%2e%2e/x"):
        answer = client.get("/api/thumbnail", params={"row": row})
        assert (answer.status_code, answer.json()) == (404, {"error": "this row has no picture"}), row
    assert ask(client, 404, like="nowhere/image") == "there is no such row in the collection"


def test_every_answer_tells_the_browser_to_trust_nothing_else(client: TestClient) -> None:
    for path in ("/", "/static/page.js", "/api/collection", "/healthz", "/openapi.json", "/nothing", "/api/thumbnail"):
        headers = client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy.pop("img-src") == "'self' blob:"
        assert {policy.pop(name) for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
        assert set(policy.values()) == {"'none'"}
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


def test_the_page_says_what_it_is_for_and_holds_no_script_of_its_own(client: TestClient) -> None:
    page = client.get("/").text
    assert "Research use, not for diagnosis" in page
    names = list(SCRIPTS)
    assert len(names) > 6
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert scripts == [(f' src="/static/{name}"', "") for name in names]
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page)
    everything = page + "".join(client.get(f"/static/{name}").text for name in (*names, "style.css"))
    assert not re.search(r"https?://", everything), "nothing is loaded from elsewhere"
    assert '<option value="it&#39;s here">' in page


def test_the_api_describes_itself_without_a_cdn(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = {"/healthz", "/api/collection", "/api/search", "/api/thumbnail", "/api/map", "/api/case"}
    forms = {"/api/search/image", "/api/search/upload"}
    assert set(document["paths"]) == paths | forms | {"/api/selection", "/api/selection/csv", "/metrics"}
    for path in forms:
        form = document["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(form["properties"]) == {"query"}
        assert form["additionalProperties"] == {"type": "string", "format": "binary"}
    assert {"parts", "weights"} <= set(document["components"]["schemas"]["Query"]["properties"])
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404
    health = client.get("/healthz").json()
    assert (health["status"], health["rows"]) == ("ok", 2 * NUM_SAMPLES)
    described = client.get("/api/collection").json()
    assert described["queries"] == ["image", "text"]
    assert described["labels"]["modality_type"] == {"values": [["CT", 20], ["MR", 20]], "num_values": 2, "kind": "text"}


def test_only_allowed_names_and_no_other_site_may_ask(client: TestClient, searcher: Searcher) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "localhost@evil", "[::2]"):
        answer = client.get("/healthz", headers={"host": host})
        assert answer.status_code == 400, host
        assert "allow-host" in answer.json()["error"]
    for host in ("localhost", "LOCALHOST:99", "127.0.0.1:1", "[::1]:8765"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200, host
    with TestClient(create_app(searcher, hosts=["Atlas.Clinic"]), base_url="http://atlas.clinic") as other:
        assert other.get("/healthz").status_code == 200
    for site, code in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        answer = client.post("/api/search", json={"text": "x"}, headers={"sec-fetch-site": site})
        assert answer.status_code == code, site


def test_many_at_once_get_the_answers_of_one_alone(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [caption_of(sample) for sample in range(60)]
    alone = [rows_and_scores(searcher.search(text=text, k=5)) for text in words]
    sizes: list[int] = []
    encode = searcher.encode_prepared

    def slow(modality: str, raws: Any) -> np.ndarray:
        time.sleep(0.05)  # so that the others have to wait
        sizes.append(len(raws))
        return encode(modality, raws)

    monkeypatch.setattr(searcher, "encode_prepared", slow)
    with TestClient(create_app(searcher), base_url=LOCAL) as client, ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda text: ask(client, text=text, k=5), words))
    assert [rows_and_scores(hits) for hits in found] == alone
    assert sum(sizes) == 60
    assert max(sizes) > 1


def test_the_map_is_of_the_pairs_and_made_once(client: TestClient, searcher: Searcher, monkeypatch: Any) -> None:
    calls = []

    def counted(rows: Any) -> Any:
        calls.append(len(rows))
        return principal_plane(rows)

    monkeypatch.setattr(overview, "principal_plane", counted)
    made = overview.Overview(searcher.collection)
    threads = [threading.Thread(target=made.map) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    found = client.get("/api/map").json()
    assert found == json.loads(json.dumps(made.map()))
    pairs = searcher.collection.pairs(1000)
    assert [pair["id"] for pair in found["pairs"]] == pairs.ids
    rows = {name: torch.from_numpy(matrix) for name, matrix in pairs.vectors.items()}
    expected = measure(rows, groups=pairs.groups, include=("gap",))
    assert {key: found["figures"][key] for key in expected if key.startswith("gap/")} == pytest.approx(
        {key: value for key, value in expected.items() if key.startswith("gap/")}, abs=1e-6
    )
    for pair, first, second in zip(found["pairs"], *pairs.vectors.values(), strict=True):
        assert pair["cosine"] == pytest.approx(float(first @ second), abs=1e-3)
        assert pair["row"] == pair["thumbnail"] == f"{pair['id']}/image"


def test_a_collection_that_breaks_meanwhile_is_said_to_be_broken(searcher: Searcher, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise DataRefused("x cannot be read (y); it is damaged: index again")

    monkeypatch.setattr(searcher.collection, "search", broken)
    with TestClient(create_app(searcher), base_url=LOCAL) as client:
        assert "damaged" in ask(client, 503, text="x")


def test_a_map_of_a_choice_says_so_and_one_pair_has_none(searcher: Searcher) -> None:
    some = overview.Overview(searcher.collection, max_pairs=8).map()
    assert (some["num_pairs"], some["is_sample"], len(some["pairs"])) == (8, True, 8)
    with pytest.raises(UsageError, match="two samples or more"):
        overview.Overview(searcher.collection, max_pairs=1).map()


def test_a_map_is_made_again_when_the_collection_has_changed(tmp_path: Path) -> None:
    from gapless.search.build import delete_rows

    searcher = open_searcher(tmp_path)
    made = overview.Overview(searcher.collection)
    assert made.map()["num_pairs"] == NUM_SAMPLES
    delete_rows(searcher.collection, f"id = '{made.map()['pairs'][0]['id']}'")
    assert made.map()["num_pairs"] == NUM_SAMPLES - 1
