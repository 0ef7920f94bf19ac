"""Thousands of hostile requests: never a 5xx, never a word of a file that is not the service's, always one sentence.

They go straight to the ASGI door, where no client library tidies them up. The control is a service as many are written.
"""

import asyncio
import json
import os
import random
import string
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_service import open_searcher, pixels_of, png_of

pytest.importorskip("fastapi", reason="needs the extra 'web'")
from fastapi import FastAPI, Response

import gapless
from gapless.server.app import create_app

SECRET = "the-secret-of-another-file"
ALLOWED = {200, 400, 403, 404, 405, 413, 415, 429}
Call = dict[str, Any]

PLACES = ["secret.txt", "../secret.txt", "../../secret.txt", "model/config.json", "../model/config.json", "/etc/passwd"]
DISGUISES = [
    lambda path: path,
    lambda path: path.replace("/", "%2f").replace(".", "%2e"),
    lambda path: path.replace("/", "%252f"),
    lambda path: path.replace("/", "\\"),
    lambda path: path.replace("../", "....//"),
    lambda path: path + "\x00.js",
    lambda path: "/" + path,
    lambda path: "//" + path,
    lambda path: "file://" + path,
    lambda path: path.replace("..", "．．"),
    lambda path: path.replace("/", "\u2215"),
    lambda path: "page.js/../" + path,
]
WORDS = [
    "",
    " ",
    "\x00",
    "knee\x00cyst",
    "\u202eknee",
    "a" * 5000,
    "é" * 700,
    "e\u0301" * 900,
    "😀🏴‍☠️",
    "\ud800",
    "\uffff",
    "ﷺ" * 99,
]
WORDS += [
    "http://127.0.0.1:1/x",
    "file:///etc/passwd",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "'; --",
    "\n\r\t",
]
FILTERS = [
    "",
    "1=1",
    "split = 'test'; DROP TABLE rows",
    "split = 'a' OR 1=1 --",
    "') OR ('1'='1",
    "id = (SELECT 1)",
    "UNION SELECT *",
]
FILTERS += [
    "`vector` IS NULL",
    "vector[0] > 0",
    "row = 'x'",
    "split LIKE '%%%%%'",
    "(" * 500,
    "NOT " * 900 + "TRUE",
    "split = 'x\x00'",
]
FILTERS += [
    "regexp_like(caption, '(a+)+$')",
    "regexp_like(caption, '[')",
    "CAST(caption AS INT) > 1",
    "1/0 = 1",
    "caption = 1e999",
    "'",
]
FILTERS += [
    "split IN (" + ",".join(["'a'"] * 900) + ")",
    "split IN ()",
    "/* */ TRUE",
    "id = id",
    "\ud800 = 1",
    "split = \ud800",
    "length(id) > -1",
]
NUMBERS = [
    "0",
    "-1",
    "-9e99",
    "1e400",
    "NaN",
    "Infinity",
    "10" * 300,
    "1.5",
    '"5"',
    "null",
    "true",
    "[1]",
    "{}",
    "2147483648",
    "9" * 5000,
    "5",
]
METHODS = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "\x00",
    "GET HTTP/1.1",
]
PATHS = [
    "/",
    "/healthz",
    "/api/collection",
    "/api/search",
    "/api/search/image",
    "/api/search/upload",
    "/api/thumbnail",
    "/api/case",
    "/api/map",
    "/api/selection",
    "/api/selection/csv",
    "/static/page.js",
    "/docs",
]
TYPES = [
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/xml",
    "",
    "\x00",
    "a" * 999,
]


class Attacker:
    """Draws requests; the same seed draws the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def draw(self) -> Call:
        kinds = [self.traversal, self.thumbnail, self.query, self.query, self.bytes_for_json, self.upload, self.headers]
        return self.random.choice([*kinds, self.method, self.selection])()

    def path(self) -> str:
        return self.random.choice(DISGUISES)(self.random.choice(PLACES))

    def text(self) -> str:
        letters = string.printable + "éß漢字\u202e\x00\x1b\ufeff😀"
        drawn = "".join(self.random.choices(letters, k=self.random.randrange(40)))
        return self.random.choice([self.random.choice(WORDS), drawn, self.path()])

    def traversal(self) -> Call:
        return {
            "path": self.random.choice(["/static/", "/", "/api/", "/static", "/api/thumbnail/", "//"]) + self.path()
        }

    def thumbnail(self) -> Call:
        value = self.random.choice([self.path(), self.text(), f"{self.path()}/image"]).encode("utf-8", "surrogatepass")
        key = self.random.choice(["row", "row", "row", "path", "url", "row[]"])
        quoted = "".join(f"%{byte:02x}" for byte in value) if self.random.random() < 0.7 else value.decode("latin-1")
        return {"path": "/api/thumbnail", "query": f"{key}={quoted}" * self.random.choice([1, 1, 2])}

    def raw_query(self) -> str:
        """JSON as text, so that it can hold what no encoder writes."""
        text = json.dumps
        fields = {
            "text": lambda: text(self.text()),
            "k": lambda: self.random.choice(NUMBERS),
            "image_weight": lambda: self.random.choice(NUMBERS),
            "modality": lambda: text(self.random.choice(["image", "text", self.text()])),
            "where": lambda: text(self.random.choice([*FILTERS, self.text()])),
            "labels": lambda: text({self.random.choice(["modality_type", "finding site", self.text()]): self.text()}),
            "like": lambda: text(self.random.choice([self.path(), self.text()])),
            "vector": lambda: f"[{','.join(self.random.choices(NUMBERS, k=self.random.choice([0, 1, 24, 300])))}]",
            "hybrid": lambda: self.random.choice(["true", "false", "2", '"yes"']),
            "url": lambda: text("http://127.0.0.1:1/"),
            self.text(): lambda: self.random.choice(NUMBERS),
        }
        chosen = {"text"} if self.random.random() < 0.6 else set()
        chosen |= set(self.random.sample(list(fields), self.random.randrange(4)))
        return "{" + ",".join(f"{text(name)}:{fields[name]()}" for name in fields if name in chosen) + "}"

    def query(self) -> Call:
        return {"path": "/api/search", "method": "POST", "body": self.raw_query().encode(), "type": "application/json"}

    def bytes_for_json(self) -> Call:
        body = self.random.choice([b"", b"{", b"[" * 3000, b"null", b"\xff\xfe{", self.random.randbytes(300), b"\x00"])
        if self.random.random() < 0.5:
            whole = self.raw_query().encode()
            body = whole[: self.random.randrange(len(whole) + 1)]
        return {"path": "/api/search", "method": "POST", "body": body, "type": self.random.choice(TYPES)}

    def image(self) -> bytes:
        whole = png_of(pixels_of(self.random.randrange(30)))
        damaged = bytearray(whole)
        for _ in range(self.random.randrange(1, 6)):
            damaged[self.random.randrange(len(damaged))] = self.random.randrange(256)
        bomb = bytearray(png_of(np.zeros((2, 2), np.uint8)))
        bomb[16:24] = (self.random.choice([60_000, 2**31 - 1])).to_bytes(4, "big") * 2
        bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
        dicom = bytes(128) + b"DICM" + self.random.randbytes(200)
        short = whole[: self.random.randrange(len(whole))]
        return self.random.choice(
            [whole, bytes(damaged), bytes(bomb), dicom, short, b"", b"GIF89a", self.random.randbytes(99)]
        )

    def upload(self) -> Call:
        boundary = self.random.choice(["b", "b", "b", "b" * 300, '"', "\x00"]).encode()
        name = self.random.choice(["x.png", self.path(), self.text()]).encode("utf-8", "replace").replace(b"\n", b"")
        field = self.random.choice([b"image", b"image", b"image", b"query", b"../image", b""])
        head = b'Content-Disposition: form-data; name="' + field + b'"; filename="' + name + b'"'
        query = self.random.choice([b"{}", self.raw_query().encode(), self.random.randbytes(20)])
        parts = [head + b"\r\nContent-Type: image/png\r\n\r\n" + self.image()]
        parts += [b'Content-Disposition: form-data; name="query"\r\n\r\n' + query] * self.random.choice([0, 1, 1, 1, 2])
        parts += [b"Content-Disposition: form-data\r\n\r\nx"] * (self.random.random() < 0.1)
        body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
        if self.random.random() < 0.2:
            body = body[: self.random.randrange(len(body))]
        kind = "multipart/form-data; boundary=" + boundary.decode("latin-1")
        kind = self.random.choice([kind] * 6 + TYPES)
        return {"path": "/api/search/image", "method": "POST", "body": body, "type": kind}

    def selection(self) -> Call:
        ids: list[Any] = [self.text() for _ in range(self.random.choice([0, 1, 3, 1_001]))]
        body = json.dumps({"ids": [*ids, *self.random.choice([[], [None], [1.5], [["x"]], ["\ud800"]])]}).encode()
        path = self.random.choice(["/api/selection", "/api/selection/csv"])
        return {"path": path, "method": "POST", "body": body, "type": self.random.choice(TYPES[:2])}

    def headers(self) -> Call:
        flood = [(f"x-{number}", "y" * 50) for number in range(self.random.choice([1, 500]))]
        odd = [
            ("range", self.random.choice(["bytes=0-0", "bytes=-1", "bytes=0-0,5-9,1-99999999999", "x"])),
            ("content-length", self.random.choice(["-1", "9" * 400, "x", "1e9", "5, 5", "٣"])),
            ("x-forwarded-host", "evil.example"),
            ("host", "evil.example"),
            ("x-original-url", self.path()),
            ("x-http-method-override", "DELETE"),
            ("accept", "\x00"),
            ("cookie", "a=" + "b" * 5000),
            ("content-encoding", "gzip"),
            ("transfer-encoding", "chunked, chunked"),
            ("if-none-match", "*"),
            ("sec-fetch-site", "cross-site"),
            ("origin", "null"),
        ]
        chosen = self.random.sample(odd, self.random.randrange(1, 5))
        call = self.random.choice([lambda: {"path": self.random.choice(PATHS)}, self.query, self.traversal])()
        return {**call, "headers": [*chosen, *flood]}

    def method(self) -> Call:
        return {"path": self.random.choice(PATHS), "method": self.random.choice(METHODS), "query": self.text()}


async def send(app: Any, call: Call) -> tuple[int, dict[str, str], bytes]:
    path = call["path"]
    headers = [("host", "127.0.0.1:8765"), *call.get("headers", [])]
    headers += [("content-type", call["type"])] if "type" in call else []
    raw = path.encode("utf-8", "surrogatepass")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.get("method", "GET"),
        "scheme": "http",
        "path": path,
        "raw_path": raw,
        "query_string": call.get("query", "").encode("utf-8", "surrogatepass"),
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8765),
        "headers": [(name.encode(), value.encode("utf-8", "replace")) for name, value in headers],
    }
    bodies = [call.get("body", b"")]
    answer: dict[str, Any] = {"body": b""}

    async def receive() -> Call:
        return {"type": "http.request", "body": bodies.pop() if bodies else b"", "more_body": False}

    async def take(message: Call) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
            answer["headers"] = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        answer["body"] += message.get("body", b"")

    await app(scope, receive, take)
    return answer["status"], answer["headers"], answer["body"]


def fault_of(call: Call, status: int, headers: dict[str, str], body: bytes) -> str | None:
    """What is wrong with an answer."""
    if status not in ALLOWED:
        return f"status {status}"
    if any(words in body for words in (SECRET.encode(), b"root:", b'"model_type"')):
        return "a file that is not the service's"
    if "default-src 'none'" not in headers.get("content-security-policy", ""):
        return "no policy"
    if status >= 400 and call.get("method") != "HEAD":
        told = json.loads(body)
        if set(told) != {"error"} or not told["error"] or "Traceback" in told["error"]:
            return "no sentence"
    return None


class Watch:
    """Names of files that Python opens while it watches."""

    def __init__(self) -> None:
        self.watching = False
        self.opened: set[str] = set()
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event == "open" and isinstance(arguments[0], str | bytes):
            self.opened.add(os.fsdecode(arguments[0]))

    def __enter__(self) -> "Watch":
        self.watching = True
        return self

    def __exit__(self, *_: object) -> None:
        self.watching = False

    def outside(self) -> list[str]:
        """What is neither a part of Python, its packages and gapless, nor the system's own."""
        own = (sys.prefix, sys.base_prefix, str(Path(gapless.__file__).parent), "/dev/", "/proc/", "/sys/")
        return sorted(path for path in self.opened if not os.path.abspath(path).startswith(own))


async def attack(app: Any, seed: int, count: int) -> tuple[list[str], Counter[int]]:
    """The faults of so many requests, sixteen under way at a time, and how often each status was answered."""
    attacker = Attacker(seed)
    calls: Iterator[Call] = iter([attacker.draw() for _ in range(count)])
    faults: list[str] = []
    statuses: Counter[int] = Counter()

    async def some() -> None:
        for call in calls:
            status, headers, body = await send(app, call)
            statuses[status] += 1
            fault = fault_of(call, status, headers, body)
            if fault is not None:
                faults.append(f"{fault}: {str(call)[:300]} -> {body[:200]!r}")

    await asyncio.gather(*(some() for _ in range(16)))
    return faults, statuses


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def app(home: Path) -> FastAPI:
    searcher = open_searcher(home)
    (home / "secret.txt").write_text(SECRET)
    (home / "collection" / "secret.txt").write_text(SECRET)
    return create_app(searcher)


@pytest.mark.ci
def test_ten_thousand_hostile_requests_get_sentences(app: FastAPI, home: Path, monkeypatch: Any) -> None:
    count = 10_000
    monkeypatch.chdir(home / "collection")
    before = sorted(str(path) for path in home.rglob("*"))
    with Watch() as watch:
        faults, statuses = asyncio.run(attack(app, 0, count))
    assert faults == []
    assert watch.outside() == []
    assert sum(statuses.values()) == count
    assert {200, 400, 404, 405, 415} <= set(statuses)
    assert statuses[200] > count / 20, "the attacks must also reach the search itself"
    assert sorted(str(path) for path in home.rglob("*")) == before
    status, _, body = asyncio.run(send(app, {"path": "/healthz"}))
    assert (status, json.loads(body)["rows"]) == (200, 60)


def test_the_control_a_service_as_many_are_written_fails(home: Path, app: FastAPI, monkeypatch: Any) -> None:
    monkeypatch.chdir(home / "collection")
    naive = FastAPI(openapi_url=None)

    @naive.get("/static/{name:path}")
    def static(name: str) -> Response:
        path = os.path.join(home / "collection", name)
        return Response(Path(path).read_bytes() if os.path.isfile(path) else b"", 200)

    @naive.post("/api/search")
    async def search(query: dict[str, Any]) -> int:
        return int(query.get("k", 5)) + len(str(query["text"]).encode())

    async def careless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await naive(scope, receive, send)
        except Exception:  # the error page is sent by then
            return

    with Watch() as watch:
        faults, _ = asyncio.run(attack(careless, 0, 2_000))
    found = Counter(fault.split(":")[0] for fault in faults)
    assert found["a file that is not the service's"] > 0
    assert found["status 500"] > 0
    assert any(path.endswith(("secret.txt", "passwd")) for path in watch.outside())
