"""64 clients at once, without a pause: every answer is the right one and memory stays; a service that is killed and
started again answers the same.
"""

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from command_server import shared_server
from fakes import CAPTIONS
from small_service import caption_of, pixels_of, png_of, write_collection_of_images
from torture.ledger import record

pytest.importorskip("uvicorn", reason="needs the extra 'web'")

CLIENTS = 64
SECONDS = 60
SHORT_SECONDS = 4
GROWTH = 1.03  # of the resident memory between the second quarter and the last
SHORT_GROWTH = 1.10  # the allocator has not settled after a second
ROUNDING = 2e-4  # how many texts are embedded together moves the last digits of a score


@dataclass(frozen=True)
class Request:
    """One thing to ask, and its body."""

    method: str
    path: str
    body: bytes = b""
    kind: str = "application/json"


def search(**query: Any) -> Request:
    return Request("POST", "/api/search", json.dumps(query).encode())


def upload(number: int) -> Request:
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="image"; filename="x.png"\r\n\r\n' + png_of(pixels_of(number)),
        b'\r\n--b\r\ncontent-disposition: form-data; name="query"\r\n\r\n{"k": 4}\r\n--b--\r\n',
    ]
    return Request("POST", "/api/search/image", b"".join(parts), "multipart/form-data; boundary=b")


WORDS = [search(text=caption_of(number), k=5) for number in range(24)]
REQUESTS = [
    *WORDS,
    *(search(text=text, k=4, modality="image", where="split = 'test'") for text in CAPTIONS),
    *(search(text=text, k=6, hybrid=True) for text in CAPTIONS),
    *(search(like=f"images/{number}.png/image", k=5) for number in range(8)),
    *(upload(number) for number in range(6)),
    *(Request("GET", f"/api/thumbnail?row=images/{number}.png/image") for number in range(6)),
    Request("GET", "/api/collection"),
    Request("GET", "/healthz"),
    Request("GET", "/"),
]


Started = Callable[[], AbstractContextManager[tuple[int, int]]]  # gives a process id and a port


@contextmanager
def served(collection: Path) -> Iterator[tuple[int, int]]:
    """The service of a collection; it is killed at the end."""
    running = shared_server().start("serve", collection, "--port", 0)
    try:
        yield running.pid, int(running.said(r"http://127\.0\.0\.1:(\d+)"))
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()


@contextmanager
def naive_service() -> Iterator[tuple[int, int]]:
    """The control, in a process that has imported nothing else: it is small, so that its growth shows."""
    command = [sys.executable, str(Path(__file__).with_name("naive_service.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        told = next((line for line in process.stdout if "http://" in line), "")
        found = re.search(r"127\.0\.0\.1:(\d+)", told)
        assert found, told
        reader = threading.Thread(target=process.stdout.read)  # a full pipe would stop the service
        reader.start()
        try:
            yield process.pid, int(found[1])
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            reader.join()


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, request: Request) -> Any:
        """The answer without what is measured; anything but success raises, and the next one is asked anew."""
        try:
            self.connection.request(request.method, request.path, request.body, {"content-type": request.kind})
            with self.connection.getresponse() as answer:
                content = answer.read()
        except BaseException:
            self.connection.close()
            raise
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {content[:200]!r}")
        return json.loads(content)["hits"] if request.method == "POST" else content


def same(found: Any, expected: Any) -> bool:
    """Equal; hits in the same order but for those whose scores are one up to rounding."""
    if not isinstance(expected, list):
        return bool(found == expected)
    if len(found) != len(expected):
        return False
    scores = {hit["row"]: hit["score"] for hit in expected}
    last = expected[-1]["score"] if expected else 0.0
    return all(
        abs(hit["score"] - there["score"]) < ROUNDING and abs(scores.get(hit["row"], last) - there["score"]) < ROUNDING
        for hit, there in zip(found, expected, strict=True)
    )


@dataclass
class Outcome:
    """What happened under load."""

    answers: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        quarter = len(self.megabytes) // 4
        return statistics.median(self.megabytes[-quarter:]) / statistics.median(self.megabytes[quarter : 2 * quarter])


def under_load(pid: int, port: int, requests: Sequence[Request], expected: Sequence[Any], seconds: float) -> Outcome:
    """All clients ask one thing after the other, each from another place in the list."""
    outcome, lock, end = Outcome(), threading.Lock(), time.monotonic() + seconds

    def one(number: int) -> None:
        client, place = Client(port), number * 7
        while time.monotonic() < end:
            place = (place + 1) % len(requests)
            start = time.monotonic()
            try:
                fault = None if same(client.ask(requests[place]), expected[place]) else "another answer"
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            with lock:
                outcome.answers += 1
                outcome.seconds.append(time.monotonic() - start)
                if fault is not None:
                    outcome.errors.append(f"{requests[place].path} {requests[place].body[:80]!r}: {fault}")
        client.connection.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        outcome.megabytes.append(resident(pid))
        time.sleep(seconds / 200)
    for thread in threads:
        thread.join()
    return outcome


def resident(pid: int) -> float:
    """Megabytes of a process in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0  # of one that was killed


def one_by_one(port: int, requests: Sequence[Request]) -> list[Any]:
    client = Client(port)
    with closing(client.connection):
        return [client.ask(request) for request in requests]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection_of_images(tmp_path_factory.mktemp("load"))


def endure(started: Started, requests: Sequence[Request], seconds: float) -> tuple[Outcome, bool]:
    """Load, a kill in the midst of further load, a new start; whether the answers are then the same."""
    with started() as (pid, port):
        one_by_one(port, requests)  # what is read once is read before memory is looked at
        expected = one_by_one(port, requests)
        outcome = under_load(pid, port, requests, expected, seconds)
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        under_load(pid, port, requests[:4], expected[:4], 0.5)
        killer.join()
    with started() as (_, port):
        again = one_by_one(port, requests)
    return outcome, again == expected


def check(collection: Path, seconds: float, growth: float) -> None:
    outcome, is_same = endure(lambda: served(collection), REQUESTS, seconds)
    record(
        "load",
        clients=CLIENTS,
        seconds=seconds,
        answers=outcome.answers,
        errors=len(outcome.errors),
        milliseconds_median=round(1000 * statistics.median(outcome.seconds), 1),
        milliseconds_largest=round(1000 * max(outcome.seconds), 1),
        memory_growth=round(outcome.growth, 4),
        same_after_restart=is_same,
    )
    assert outcome.errors[:5] == []
    assert outcome.answers > CLIENTS
    assert outcome.growth < growth
    assert is_same


@pytest.mark.ci
def test_a_burst_of_64_clients(collection: Path) -> None:
    check(collection, SHORT_SECONDS, SHORT_GROWTH)


@pytest.mark.torture
def test_64_clients_for_a_minute(collection: Path) -> None:
    check(collection, SECONDS, GROWTH)


@pytest.mark.ci
def test_the_control_a_naive_service_mixes_answers_and_swells() -> None:
    outcome, is_same = endure(naive_service, WORDS[:8], 1.0)
    record("load (control)", errors=len(outcome.errors), memory_growth=round(outcome.growth, 3), same=is_same)
    assert outcome.errors
    assert outcome.growth > SHORT_GROWTH
    assert not is_same
