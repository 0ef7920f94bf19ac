"""64 clients at once, for minutes: what `gapless serve` takes, whether it errs, and whether its memory grows.

    python benchmarks/serve_load.py [--minutes 10] [--clients 64] [--size 100000] [--out FILE.json]

The service is the real command in a process of its own over drawn 512-d vectors, its model a BERT of MiniLM's size.
Every client has a connection of its own and asks again as soon as it is answered, seven times by words and then by a
vector. So the service is always full, and a query waits for those before it: the median is about the number of clients
through the rate, and the figure to look at is how far the 99th percentile lies above it. An error is another status, a
broken connection, or other hits than the same query gave alone. Memory is the resident set of the service; its growth
is that from the second quarter of the time to the last one, because the allocator settles in the first.

The clients are threads of one process, and take their share of the cores.
"""

import argparse
import http.client
import json
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from search import DIM, K, drawn_captions, drawn_vectors, make_collection
from search_http import JSON, drawn_model, running_service

from gapless.models.fingerprint import fingerprint_of
from gapless.search.indices import update_indices

SPREAD_TARGET = 5.0  # the 99th percentile, as a multiple of the median
GROWTH_TARGET = 1.05
NUM_QUERIES = 64
VECTOR_EVERY = 8
ROUNDING = 2e-4  # how many texts are embedded together moves the last digits of a score
SAMPLES = 400  # of the memory

Query = Mapping[str, object]
Hits = Sequence[Mapping[str, Any]]


class LoadFigures(TypedDict):
    """What is measured."""

    size: int
    clients: int
    minutes: float
    answers: int
    errors: int
    kinds_of_error: dict[str, int]
    queries_per_s: float
    p50_ms: float
    p99_ms: float
    largest_ms: float
    spread: float
    memory_mb: float
    memory_growth: float


@dataclass
class Seen:
    """What the clients saw; each adds its own at its end."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    megabytes: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: Sequence[float], errors: Counter[str]) -> None:
        with self.lock:
            self.seconds.extend(seconds)
            self.errors.update(errors)

    @property
    def growth(self) -> float:
        quarter = max(1, len(self.megabytes) // 4)
        second, last = self.megabytes[quarter : 2 * quarter] or self.megabytes, self.megabytes[-quarter:]
        return statistics.median(last) / statistics.median(second)


def drawn_queries() -> list[Query]:
    words, vectors = drawn_captions(NUM_QUERIES), drawn_vectors(NUM_QUERIES, 99)
    return [
        {"vector": vectors[number].tolist(), "k": K}
        if number % VECTOR_EVERY == VECTOR_EVERY - 1
        else {"text": words[number], "k": K}
        for number in range(NUM_QUERIES)
    ]


def hits_of(connection: http.client.HTTPConnection, body: str) -> Hits:
    """Raises RuntimeError for another status than 200."""
    connection.request("POST", "/api/search", body, JSON)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}")
    hits: Hits = json.loads(content)["hits"]
    return hits


def is_same(hits: Hits, expected: Hits) -> bool:
    """Whether the scores are, up to rounding, and no row is new but one that ties with the last."""
    if len(hits) != len(expected):
        return False
    known = {hit["row"]: hit["score"] for hit in expected}
    last = expected[-1]["score"]
    return all(
        abs(hit["score"] - there["score"]) < ROUNDING and abs(known.get(hit["row"], last) - hit["score"]) < ROUNDING
        for hit, there in zip(hits, expected, strict=True)
    )


def client(address: str, first: int, bodies: Sequence[str], expected: Sequence[Hits], end: float, seen: Seen) -> None:
    """Ask until the end, one query after the other, each client from another place in the list."""
    connection = http.client.HTTPConnection(address, timeout=120)
    seconds, errors, place = [], Counter[str](), first
    while time.monotonic() < end:
        place = (place + 1) % len(bodies)
        start = time.perf_counter()
        try:
            hits = hits_of(connection, bodies[place])
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            errors[str(error) if isinstance(error, RuntimeError) else type(error).__name__] += 1
            connection.close()
            continue
        seconds.append(time.perf_counter() - start)
        if not is_same(hits, expected[place]):
            errors["other hits than alone"] += 1
    connection.close()
    seen.add(seconds, errors)


def resident(pid: int) -> float:
    """Megabytes of a process in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else float("nan")


def load(pid: int, address: str, clients: int, minutes: float) -> tuple[Seen, float]:
    """What the clients saw, and the seconds from the first query to the last answer."""
    bodies = [json.dumps(query) for query in drawn_queries()]
    alone = http.client.HTTPConnection(address, timeout=120)
    expected = [hits_of(alone, body) for body in bodies]
    alone.close()
    seen, start = Seen(), time.monotonic()
    end = start + 60 * minutes
    threads = [
        threading.Thread(target=client, args=(address, 7 * number, bodies, expected, end, seen))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        seen.megabytes.append(resident(pid))
        time.sleep(60 * minutes / SAMPLES)
    for thread in threads:
        thread.join()
    return seen, time.monotonic() - start


def run(size: int, clients: int, minutes: float) -> LoadFigures:
    with tempfile.TemporaryDirectory() as folder:
        model = drawn_model(Path(folder) / "model")
        about = {"source": [str(Path(folder) / "model")], "fingerprint": fingerprint_of(model)}
        path = Path(folder) / "collection"
        update_indices(make_collection(path, drawn_vectors(size, 1), about), None, above=size)
        del model
        with running_service(path) as (pid, address):
            seen, seconds = load(pid, address, clients, minutes)
    if not seen.seconds:
        raise SystemExit(f"no query was answered: {dict(seen.errors)}")
    p50, p99, largest = (1000 * float(value) for value in np.percentile(seen.seconds, [50, 99, 100]))
    return LoadFigures(
        size=size,
        clients=clients,
        minutes=minutes,
        answers=len(seen.seconds),
        errors=sum(seen.errors.values()),
        kinds_of_error=dict(seen.errors),
        queries_per_s=len(seen.seconds) / seconds,
        p50_ms=p50,
        p99_ms=p99,
        largest_ms=largest,
        spread=p99 / p50,
        memory_mb=seen.megabytes[-1],
        memory_growth=seen.growth,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    options = parser.parse_args()
    found = run(options.size, options.clients, options.minutes)
    print(f"{found['size']:,} vectors of {DIM}-d, {found['clients']} clients for {found['minutes']:g} minutes")
    print(f"{found['answers']:,} answers, {found['queries_per_s']:.0f} a second, {found['errors']} errors", end="")
    print(f" {found['kinds_of_error']}" if found["errors"] else "")
    print(f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms, largest {found['largest_ms']:.0f} ms")
    print(f"p99 / p50 {found['spread']:.2f} (target {SPREAD_TARGET:g})")
    print(f"memory {found['memory_mb']:.0f} MB, growth x{found['memory_growth']:.3f} (target {GROWTH_TARGET:g})")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
