"""What a query takes through `gapless serve`, against the bare index in the same run.

    python benchmarks/search_http.py [--size 100000] [--queries 200] [--clients 8] [--out FILE.json]

The service is the real command in a process of its own, over a collection of 512-d vectors; its model is a BERT of
MiniLM's size (6 layers of 384) from a configuration: what it answers is noise, what it costs is not. Queries go one
at a time over a connection that stays open, in rounds that take turns with the bare index, so that another process on
the machine slows all of them; then from several clients at once. "Bare" is `Collection.search` in this process: the
same 10 rows with their captions, without model and without HTTP.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

import numpy as np
from search import DIM, ROUNDS, Figures, K, drawn_captions, drawn_vectors, make_collection

from gapless.models.aligner import GaplessModel
from gapless.models.fingerprint import fingerprint_of
from gapless.search.collection import Collection
from gapless.search.indices import update_indices
from gapless.training.recipes import Recipe, small_image_modality, small_text_modality
from gapless.training.run import new_model

TARGET = 2.0  # a query through HTTP at most so many times the bare index's
JSON = {"content-type": "application/json"}

Ask = Callable[[int], object]


class ServiceFigures(TypedDict):
    """What is measured of one collection."""

    size: int
    ways: dict[str, Figures]
    clients: int
    queries_per_s: float


def drawn_model(path: Path) -> GaplessModel:
    """A model with weights that nobody trained."""
    image = small_image_modality(64, (32, 64, 128, 256), (1, 1, 1, 1))
    text = small_text_modality(384, 6, 128)
    model = new_model(Recipe({"image": image, "text": text}, embedding_dim=DIM), drawn_captions(2000))
    model.save_pretrained(path)
    return GaplessModel.from_pretrained(path)


@contextlib.contextmanager
def running_service(collection: Path) -> Iterator[tuple[int, str]]:
    """`gapless serve`: its process, and the host and port where it answers."""
    command = [sys.executable, "-m", "gapless", "serve", str(collection), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stderr is not None
        told = next((line for line in process.stderr if "http://" in line), "")
        found = re.search(r"http://\S+", told)
        if found is None:
            raise SystemExit(f"the service did not start: {told}")
        try:
            yield process.pid, urlsplit(found[0]).netloc
        finally:
            process.terminate()


@contextlib.contextmanager
def service(collection: Path) -> Iterator[str]:
    """The host and port where `gapless serve` answers."""
    with running_service(collection) as (_, address):
        yield address


def asker(address: str, queries: list[Mapping[str, object]]) -> Ask:
    """Sends a query over a connection of its own and reads the answer."""
    connection = http.client.HTTPConnection(address, timeout=60)
    bodies = [json.dumps(query) for query in queries]

    def ask(number: int) -> object:
        try:
            connection.request("POST", "/api/search", bodies[number], JSON)
            answer = connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):  # the service closes what is idle for seconds
            connection.close()
            return ask(number)
        found = json.loads(answer.read())
        if answer.status != 200 or len(found["hits"]) != K:
            raise SystemExit(f"{answer.status}: {str(found)[:200]}")
        return found

    return ask


def latencies(ways: Mapping[str, Ask], num_queries: int) -> dict[str, Figures]:
    """p50 and p95 in milliseconds; the ways take turns, and each is warm before it counts."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for ask in ways.values():
        for number in range(min(20, num_queries)):
            ask(number)
    for _ in range(ROUNDS):
        for name, ask in ways.items():
            ask(0)  # opens the connection again
            for number in range(num_queries):
                start = time.perf_counter()
                ask(number)
                times[name].append(1000 * (time.perf_counter() - start))
    percentiles = {name: np.percentile(found, [50, 95]) for name, found in times.items()}
    return {name: {"p50_ms": float(p50), "p95_ms": float(p95)} for name, (p50, p95) in percentiles.items()}


def throughput(address: str, queries: list[Mapping[str, object]], clients: int) -> float:
    """Queries a second of several clients at once, each with a connection of its own."""
    askers = [asker(address, queries) for _ in range(clients)]
    for ask in askers:
        ask(0)

    def work(client: int) -> None:
        for number in range(client, len(queries), clients):
            askers[client](number)

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return len(queries) / (time.perf_counter() - start)


def run(size: int, num_queries: int, clients: int) -> ServiceFigures:
    words = drawn_captions(num_queries)
    vectors = drawn_vectors(num_queries, 99)
    with tempfile.TemporaryDirectory() as folder:
        model = drawn_model(Path(folder) / "model")
        about = {"source": [str(Path(folder) / "model")], "fingerprint": fingerprint_of(model)}
        path = Path(folder) / "collection"
        update_indices(make_collection(path, drawn_vectors(size, 1), about), None, above=size)
        bare = Collection.open(path)
        by_words: list[Mapping[str, object]] = [{"text": text, "k": K} for text in words]
        by_vector: list[Mapping[str, object]] = [{"vector": vector.tolist(), "k": K} for vector in vectors]
        with service(path) as address:
            ways: dict[str, Ask] = {
                "bare index": lambda number: bare.search(vectors[number], k=K),
                "model alone, words": lambda number: model.encode("text", [words[number]]),
                "HTTP, vector": asker(address, by_vector),
                "HTTP, words": asker(address, by_words),
            }
            found = latencies(ways, num_queries)
            rate = throughput(address, by_words, clients)
    return ServiceFigures(size=size, ways=found, clients=clients, queries_per_s=rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as JSON")
    options = parser.parse_args()
    found = run(options.size, options.queries, options.clients)
    ways = found["ways"]
    bare = ways["bare index"]["p50_ms"]
    print(f"{options.size:,} vectors of {DIM}-d, {options.queries} queries x {ROUNDS} rounds")
    print(f"{'':<22}{'p50 ms':>9}{'p95 ms':>9}{'x bare':>9}")
    for name, figures in ways.items():
        print(f"{name:<22}{figures['p50_ms']:>9.2f}{figures['p95_ms']:>9.2f}{figures['p50_ms'] / bare:>9.2f}")
    print(f"{options.clients} clients at once, words: {found['queries_per_s']:.0f} queries/s")
    ratio = ways["HTTP, words"]["p50_ms"] / bare
    print(f"words through HTTP {ratio:.2f}x the bare index; target {TARGET}: {'met' if ratio <= TARGET else 'missed'}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
