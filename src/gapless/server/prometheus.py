"""What the service counts and times, in the text format that Prometheus reads at `/metrics`.

Queries are private, so every label is one of a closed set: a route as it is declared in the source, a status, a way of
asking. No word of a query, no id and no address of a request is kept, so none can be shown.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4).
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gapless import __version__
from gapless.core.errors import DataRefused
from gapless.search.collection import Collection
from gapless.server.batching import Batcher

ROUTE = "/metrics"
MEDIA_TYPE = "text/plain; version=0.0.4"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds, those of Prometheus' own clients
NO_ROUTE = "none"  # a request that no route takes, or that was refused before one was looked for
NO_STATUS = "none"  # a request that ended without an answer, because the client had gone
REFUSED = 400  # from this status on

Labels = Mapping[str, str]


class Figures:
    """Counts and times of one process since it started; any thread may write and read."""

    def __init__(self) -> None:
        self.started = time.time()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._requests: Counter[tuple[str, str]] = Counter()
        self._queries: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))

    def begin(self) -> None:
        """A request has come."""
        with self._lock:
            self._in_flight += 1

    def end(self, route: str, status: str, seconds: float) -> None:
        """A request has ended.

        Args:
            route: as it is declared.
            status: of the answer, or `NO_STATUS`.
            seconds: from its first byte to the last of the answer.
        """
        place = sum(seconds > bound for bound in BUCKETS)
        with self._lock:
            self._in_flight -= 1
            self._requests[route, status] += 1
            self._seconds[route] += seconds
            self._buckets[route][place] += 1

    def answered(self, way: str) -> None:
        """A query was answered; `way` is one of a few words of the source."""
        with self._lock:
            self._queries[way] += 1

    def lines(self) -> Iterator[str]:
        """The lines of these figures, without the request that asks for them among those in flight."""
        with self._lock:
            in_flight, requests, queries = self._in_flight - 1, dict(self._requests), dict(self._queries)
            buckets = {route: list(counts) for route, counts in self._buckets.items()}
            seconds = dict(self._seconds)
        refusals = sum(
            count for (_, status), count in requests.items() if status.isdecimal() and int(status) >= REFUSED
        )
        yield from family("gapless_in_flight", "gauge", "requests that are being answered", [({}, max(0, in_flight))])
        yield from family(
            "gapless_requests_total",
            "counter",
            "requests that ended, by route and status",
            [({"route": route, "status": status}, count) for (route, status), count in sorted(requests.items())],
        )
        yield from family("gapless_refusals_total", "counter", "answers of status 400 and above", [({}, refusals)])
        yield from family(
            "gapless_queries_total",
            "counter",
            "queries that were answered, by what they asked with",
            [({"by": way}, count) for way, count in sorted(queries.items())],
        )
        yield from histogram("gapless_request_seconds", "from the first byte to the last", buckets, seconds)
        yield from family(
            "process_start_time_seconds", "gauge", "when the process started, in Unix time", [({}, self.started)]
        )


class Measured:
    """ASGI middleware that counts and times every request; it stands before all others, so that refusals count too."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = NO_STATUS

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        start = time.perf_counter()
        self.figures.begin()
        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self.figures.end(route, status, time.perf_counter() - start)


def add_metrics(app: FastAPI, figures: Figures, collection: Collection, batcher: Batcher) -> None:
    """Count every request of this application, and answer `/metrics`.

    Middleware that is added last is asked first: add it after all others whose refusals should count.
    """
    app.add_middleware(Measured, figures=figures)

    @app.get(ROUTE, response_class=PlainTextResponse)
    def metrics() -> Response:
        lines = [*figures.lines(), *state_lines(collection, batcher), ""]
        return Response("\n".join(lines), media_type=MEDIA_TYPE)


def state_lines(collection: Collection, batcher: Batcher) -> Iterator[str]:
    """What is served now; a collection out of reach has neither rows nor a version."""
    yield from family("gapless_info", "gauge", "the gapless that answers", [({"version": __version__}, 1)])
    yield from family("gapless_waiting", "gauge", "inputs that wait for the model", [({}, batcher.waiting)])
    state: list[tuple[str, str, int]] = []
    try:
        state.append(("rows", "rows of the collection", collection.count()))
        state.append(("version", "version of the table of rows", collection.table_version().number))
    except DataRefused:
        state.clear()
    up = int(bool(state))
    yield from family("gapless_collection_up", "gauge", "whether the collection can be read", [({}, up)])
    for name, meaning, value in state:
        yield from family(f"gapless_collection_{name}", "gauge", meaning, [({}, value)])


def family(name: str, kind: str, meaning: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    """The lines of one figure: what it is, then a line for each set of labels."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{shown(labels)} {value!r}"


def histogram(name: str, meaning: str, buckets: Mapping[str, list[int]], seconds: Mapping[str, float]) -> Iterator[str]:
    """The lines of a histogram: for each route how many requests took at most so long, and the sum of their seconds."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} histogram"
    for route, counts in sorted(buckets.items()):
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
            total += count
            yield f"{name}_bucket{shown({'route': route, 'le': bound})} {total}"
        yield f"{name}_sum{shown({'route': route})} {seconds[route]!r}"
        yield f"{name}_count{shown({'route': route})} {total}"


def shown(labels: Labels) -> str:
    """Labels as they stand behind a name; none of the values holds a character that would need an escape."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
