"""A service that is told to end answers what it was asked before, and one that takes its place loses nothing."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_server import shared_server
from small_service import caption_of, write_collection_of_images

from gapless.core.errors import UsageError
from gapless.server.serve import BACKLOG, inherited

pytest.importorskip("uvicorn", reason="needs the extra 'web'")

BODY = json.dumps({"text": caption_of(3), "k": 3}).encode()
HEAD = (
    f"POST /api/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection_of_images(tmp_path_factory.mktemp("stopping"))


def answer_of(connection: socket.socket) -> tuple[int, str | None, int]:
    """Status, the header `connection` and the number of hits of the next answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.getheader("connection"), len(json.loads(answer.read())["hits"])


def test_sigterm_answers_every_open_connection_and_exits_with_0(collection: Path) -> None:
    running = shared_server().start("serve", collection, "--port", 0)
    address = ("127.0.0.1", int(running.said(r"http://127\.0\.0\.1:(\d+)")))
    half, silent, kept = (socket.create_connection(address, timeout=30) for _ in range(3))
    with half, silent, kept:
        kept.sendall(HEAD + BODY)
        assert answer_of(kept) == (200, None, 3)
        half.sendall(HEAD + BODY[:5])
        os.kill(running.pid, signal.SIGTERM)
        end = time.monotonic() + 10
        while time.monotonic() < end:  # until it stops listening
            try:
                socket.create_connection(address, timeout=30).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.02)
        else:
            pytest.fail("it still listens")
        half.sendall(BODY[5:])
        for connection in (silent, kept):
            connection.sendall(HEAD + BODY)
        for connection in (half, silent, kept):
            status, closes, hits = answer_of(connection)
            assert (status, hits) == (200, 3)
            assert closes == "close" or connection is half  # its request was under way before the signal
    done = running.communicate()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


# --- one process replaces another ---------------------------------------------------------------------------------


def test_only_a_socket_of_this_computer_is_served_on() -> None:
    with pytest.raises(UsageError, match="--fd 9999 is no socket"), inherited(9999):
        pass
    with socket.socket() as outside:
        outside.bind(("0.0.0.0", 0))
        outside.listen()
        with pytest.raises(UsageError, match="listens on 127"), inherited(os.dup(outside.fileno())):
            pass
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(UsageError, match="listens on 127"), inherited(os.dup(silent.fileno())):
            pass


@contextmanager
def shared_socket() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(BACKLOG)
        yield listener


def started(collection: Path, listener: socket.socket) -> "subprocess.Popen[str]":
    """A service on the socket that this process holds, once it answers."""
    fd = listener.fileno()
    command = [sys.executable, "-m", "gapless", "serve", str(collection), "--fd", str(fd)]
    process = subprocess.Popen(command, pass_fds=[fd], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = next((line for line in process.stderr if "http://" in line), "")
    assert re.search(rf"http://127\.0\.0\.1:{listener.getsockname()[1]}\b", told), told
    return process


class Clients:
    """Clients that ask without a pause, each request on a connection of its own; nothing is tried again but a refused
    connection.
    """

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.outcomes: Counter[str] = Counter()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(count)]

    def __enter__(self) -> "Clients":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def work(self) -> None:
        while not self.ended.is_set():
            try:
                outcome = self.ask()
            except ConnectionRefusedError:
                outcome = "refused"
                time.sleep(0.02)
            except (OSError, http.client.HTTPException) as error:
                outcome = f"lost: {type(error).__name__}"
            self.outcomes[outcome] += 1

    def ask(self) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(HEAD + BODY)
            status, _, hits = answer_of(connection)
        return "answered" if (status, hits) == (200, 3) else f"lost: {status}"

    @property
    def lost(self) -> dict[str, int]:
        return {name: count for name, count in self.outcomes.items() if name.startswith("lost")}


def restarted(collection: Path, how: int, rounds: int) -> tuple[Clients, list[int]]:
    """Clients during so many replacements of the service by another one on its socket, and the exit codes."""
    with shared_socket() as listener:
        process, codes = started(collection, listener), []
        with Clients(listener.getsockname()[1], 8) as clients:
            for _ in range(rounds):
                following = started(collection, listener)
                time.sleep(0.5)
                process.send_signal(how)
                process.communicate(timeout=60)
                codes.append(process.returncode)
                process = following
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    return clients, codes


@pytest.mark.slow
def test_a_rolling_restart_loses_no_request(collection: Path) -> None:
    clients, codes = restarted(collection, signal.SIGTERM, 3)
    assert codes == [0, 0, 0]
    assert clients.lost == {}
    assert clients.outcomes["refused"] == 0, "somebody always holds the socket"
    assert clients.outcomes["answered"] > 100


@pytest.mark.slow
def test_the_control_a_restart_by_a_kill_loses_some(collection: Path) -> None:
    clients, codes = restarted(collection, signal.SIGKILL, 1)
    assert codes == [-signal.SIGKILL]
    assert clients.lost
