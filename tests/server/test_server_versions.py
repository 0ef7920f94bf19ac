"""Two services read one collection on an object store; both answer by a new version within a second of its commit."""

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from command_server import CommandServer
from fakes import tiny_model
from object_store import empty_bucket
from torture.ledger import record

from gapless.cli.main import main
from gapless.manifest.readers.phantom import write_phantom
from gapless.search.build import delete_rows
from gapless.search.collection import TABLE, Collection

pytest.importorskip("uvicorn", reason="needs the extra 'web'")
lancedb = pytest.importorskip("lancedb")
pytestmark = pytest.mark.slow  # two processes; that an open collection sees a commit is also in test_search_store.py
SECONDS = 1.0


class Service:
    """One process that serves, and a connection to it."""

    def __init__(self, server: CommandServer, collection: str) -> None:
        self.running = server.start("serve", collection, "--port", 0)

    def connect(self) -> None:
        port = int(self.running.said(r"http://127\.0\.0\.1:(\d+)"))
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, query: Any = None) -> bytes:
        body = None if query is None else json.dumps(query)
        self.connection.request(method, path, body, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content

    def rows_found(self, where: str | None = None) -> set[str]:
        """All rows that a filter lets through, by a search with words."""
        query = {"text": "cyst", "k": 200, "where": where}
        return {hit["row"] for hit in json.loads(self.ask("POST", "/api/search", query))["hits"]}

    def version(self) -> int:
        lines = self.ask("GET", "/metrics").decode().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("gapless_collection_version "))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with empty_bucket() as bucket:
        yield f"{bucket}/shared"


@pytest.fixture(scope="module")
def index(address: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that brings all samples into the collection, which was run once."""
    home = tmp_path_factory.mktemp("versions")
    write_phantom(home / "m", num_pairs=30, num_validation=3, num_test=6, image_size=16)
    tiny_model().save_pretrained(home / "model")
    words = ["index", str(home / "model"), "--data", str(home / "m"), "--out", address, "--staging", str(home / "work")]
    assert main(words) == 0
    return words


@pytest.fixture
def services(address: str, index: list[str]) -> Iterator[list[Service]]:
    with CommandServer() as server:
        services = [Service(server, address) for _ in range(2)]
        for service in services:
            service.connect()
        yield services
        for service in services:
            service.connection.close()
            os.kill(service.running.pid, signal.SIGKILL)
            service.running.wait()


def seconds_until_seen(service: Service, expected: set[str], version: int, since: float) -> float:
    """From the commit until the service finds exactly these rows, and names the version."""
    while (found := service.rows_found()) != expected or service.version() != version:
        assert time.monotonic() - since < 30, (len(found), len(expected))
    return time.monotonic() - since


def test_a_commit_is_seen_by_two_services_within_a_second(
    services: list[Service], address: str, index: list[str]
) -> None:
    writer = Collection.open(address)
    held = lancedb.connect(address).open_table(TABLE)  # the control: LanceDB by default looks for no newer version
    before, everything = held.version, services[0].rows_found()
    left = everything - services[1].rows_found("split = 'test'")
    assert (len(everything), len(left)) == (60, 48)
    assert delete_rows(writer, "split = 'test'") == 12
    commit, waits = time.monotonic(), list[float]()
    version = writer.table_version().number
    waits += [seconds_until_seen(service, left, version, commit) for service in services]
    assert main([*index, "--restore_deleted"]) == 0
    commit, version = time.monotonic(), writer.table_version().number
    waits += [seconds_until_seen(service, everything, version, commit) for service in services]
    record("a commit on an object store", seconds_until_two_services_see_it=round(max(waits), 3))
    assert max(waits) < SECONDS, waits
    assert held.version == before != version
