"""`gapless serve` as a process: what it says, what it answers over a real socket, how it ends."""

import asyncio
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_service import write_collection_of_images

from gapless.cli.main import main
from gapless.search.searcher import Searcher
from gapless.server.serve import listening

pytest.importorskip("uvicorn", reason="needs the extra 'web'")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection_of_images(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def running(collection: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port."""
    command = [sys.executable, "-m", "gapless", "serve", str(collection), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = next((line for line in process.stderr if "http://" in line), "")
        found = re.search(r"60 rows at http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)", told)
        assert found, told + process.stderr.read()
        yield process, int(found[1])
        process.kill()


def test_it_answers_on_this_computer_and_ends_at_ctrl_c(running: tuple[subprocess.Popen[str], int]) -> None:
    process, port = running
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(
        "POST", "/api/search", json.dumps({"text": "SECRET", "k": 3}), {"content-type": "application/json"}
    )
    answer = connection.getresponse()
    assert (answer.status, len(json.loads(answer.read())["hits"])) == (200, 3)
    assert answer.getheader("server") is None

    connection.request(
        "POST", "/api/search/image", bytes(50_000_000), {"content-type": "multipart/form-data; boundary=b"}
    )
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (413, {"error": "the request is larger than 20 MB"})
    connection.close()

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out == ""
    assert err.strip() == "gapless: interrupted"


def test_an_answer_in_two_packets_does_not_wait_for_the_client() -> None:
    """Nagle's algorithm would hold the body back until the client's delayed acknowledgement: 40 ms an answer."""

    async def is_off(listener: socket.socket) -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            writer.close()

        async with await asyncio.start_server(accept, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            async with asyncio.timeout(10):
                answer = await found
            writer.close()
            await writer.wait_closed()
        return answer

    with listening(0) as listener:
        assert asyncio.run(is_off(listener))
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        assert not asyncio.run(is_off(plain)), "the control"


def test_damage_is_found_before_anybody_asks(
    collection: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(collection, damaged)
    (data,) = (damaged / "rows.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:-3000])
    assert main(["serve", str(damaged), "--port", "0"]) == 3
    told = capfd.readouterr().err.strip().splitlines()[-1]
    assert "remove it and index again" in told
    assert "http://" not in told
    shutil.copytree(collection, tmp_path / "empty")
    assert main(["index", "delete", str(tmp_path / "empty"), "--where", "id IS NOT NULL"]) == 0
    Searcher.open(tmp_path / "empty").warm()


def test_what_cannot_be_served_is_said_in_one_sentence(collection: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, sentence in (
            ([str(collection), "--port", port], f"port {port} cannot be used (address already in use)"),
            ([str(collection), "--port", "70000"], "--port lies between 0 and 65535"),
            ([str(collection), "--max-upload-mb", "0", "--port", "0"], "--max_upload_mb lies between"),
            ([str(collection.parent / "nothing"), "--port", "0"], "does not exist"),
            ([str(collection.parent / "manifest"), "--port", "0"], "is no collection"),
            ([str(collection), "--port", "0", "--model", str(collection.parent / "nowhere")], "nowhere"),
        ):
            capfd.readouterr()
            assert main(["serve", *words]) == 2, words
            told = capfd.readouterr().err.strip().splitlines()[-1]
            assert told.startswith("gapless: ")
            assert sentence in told
