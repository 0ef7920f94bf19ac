"""The whole journey without a network: nothing asks for one, and nothing that is written holds an address outside.

Every process has its sockets replaced, so that an attempt is noticed even where its failure is swallowed, and where the
kernel allows it stands in a network of its own, without any way out, which native code cannot pass by either.
"""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torture.ledger import record

BLOCKED = Path(__file__).with_name("blocked")
TINY = ["--training.num_train_epochs=1", "--training.per_device_train_batch_size=16", "--training.use_cpu=true"]
ALIGNER = [*TINY, "--embedding_dim=16", "--vocab_size=400", "--modalities.image.input.size=16"]
CAPTIONER = [*TINY, "--decoder.hidden_size=16", "--decoder.num_attention_heads=2", "--decoder.num_hidden_layers=1"]
ADDRESS = re.compile(rb"(?:https?|wss?|ftp)://[^\s\"'<>)\\\x00-\x1f]{4,80}")
# XML needs names for its vocabularies; nothing is ever fetched by them
NAMESPACES = (b"http://www.w3.org/2000/svg", b"http://www.w3.org/1999/xlink", b"http://www.w3.org/1999/xhtml")
NAMESPACES += (
    b"http://www.w3.org/XML/1998/namespace",
    b"http://www.w3.org/2000/xmlns/",
    b"http://www.w3.org/1998/Math/MathML",
)
ALL_AT_ONCE = (
    "import json, sys; from gapless.cli.main import main; sys.exit(max(main(c) for c in json.loads(sys.argv[1])))"
)


def environment(attempts: Path) -> dict[str, str]:
    """Without the settings that would make a library offline by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    paths = [str(BLOCKED), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "ATTEMPTS": str(attempts)}


def walled() -> list[str]:
    """What starts a process in a network of its own, where that is allowed."""
    try:
        works = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return ["unshare", "-rn"] if works else []


def journey(place: Path) -> list[list[str]]:
    data = ["--data", place / "m"]
    run, close = place / "run", ["--adapter.max_steps=8", "--out", place / "closed"]
    phantom = ["--num_pairs", 96, "--num_validation", 16, "--num_test", 32, "--image_size", 16, "--workers", 1]
    commands: list[list[Any]] = [
        ["data", "phantom", "--out", place / "m", *phantom],
        ["data", "audit", place / "m"],
        ["train", "phantom-small", *data, "--out", run, *ALIGNER],
        ["evaluate", run, *data, "--num_bootstrap", 5],
        ["embed", run, *data, "--out", place / "e"],
        ["close", place / "e", *close],
        ["measure", place / "e", "--num_bootstrap", 0, "--html", place / "map.html", "--out", place / "measured"],
        ["index", run, *data, "--out", place / "c"],
        ["search", place / "c", "left effusion", "--hybrid"],
        ["caption", "train", run, *data, "--out", place / "captions", *CAPTIONER],
        ["caption", "generate", place / "captions", *data, "--method", "greedy"],
        ["report", run, "--out", place / "report.html", "--figures", place / "figures"],
        ["export", run, "--to", "hub", "--out", place / "hub"],
    ]
    return [[str(word) for word in words] for words in commands]


def travel(place: Path, attempts: Path, apart: bool) -> None:
    """The journey, every command in a process of its own or all in one; the service is asked over the loopback."""
    commands = journey(place)
    started = (
        [["-m", "gapless", *words] for words in commands] if apart else [["-c", ALL_AT_ONCE, json.dumps(commands)]]
    )
    for words in started:
        command = [*walled(), sys.executable, *words]
        done = subprocess.run(command, env=environment(attempts), capture_output=True, text=True, check=False)
        with (place / "log").open("a") as log:
            log.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr[-2000:]
    with served(place / "c", attempts) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for method, path, body in (
            ("GET", "/", None),
            ("GET", "/api/map", None),
            ("GET", "/static/page.js", None),
            ("GET", "/static/map.js", None),
            ("GET", "/static/base.css", None),
            ("GET", "/static/style.css", None),
            ("POST", "/api/search", json.dumps({"text": "left effusion", "k": 5})),
        ):
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200
            with (place / "answers").open("ab") as stream:
                stream.write(answer.read() + b"\n")
        connection.close()


@contextmanager
def served(collection: Path, attempts: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "gapless", "serve", str(collection), "--port", "0"]
    with subprocess.Popen(command, env=environment(attempts), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = next((line for line in process.stderr if "http://" in line), "")
        try:
            yield int(told.split("127.0.0.1:")[1].split()[0])
        finally:
            process.kill()


def addresses_in(place: Path) -> dict[str, list[str]]:
    """Addresses outside this computer in what was written, by file; pictures inside pages are data."""
    found: dict[str, list[str]] = {}
    for file in sorted(path for path in place.rglob("*") if path.is_file()):
        text = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", file.read_bytes())
        outside = {hit for hit in ADDRESS.findall(text) if hit not in NAMESPACES and b"://127.0.0.1" not in hit}
        if outside:
            found[str(file.relative_to(place))] = sorted(hit.decode("latin-1") for hit in outside)
    return found


def check(tmp_path: Path, apart: bool) -> None:
    place, attempts = tmp_path / "out", tmp_path / "attempts"
    place.mkdir()
    attempts.touch()
    travel(place, attempts, apart)
    tried, found = attempts.read_text().splitlines(), addresses_in(place)
    num_files = sum(path.is_file() for path in place.rglob("*"))
    record("offline", commands=len(journey(place)) + 1, walled=bool(walled()), attempts=len(tried))
    record("addresses", files_searched=num_files, files_with_one=len(found))
    assert tried == []
    assert found == {}


@pytest.mark.ci
def test_the_journey_needs_no_network(tmp_path: Path) -> None:
    check(tmp_path, apart=False)


@pytest.mark.torture
def test_every_command_of_the_journey_needs_no_network(tmp_path: Path) -> None:
    check(tmp_path, apart=True)


CALLS = {
    "urllib": "import urllib.request as u; u.urlopen('http://192.0.2.1/', timeout=1)",
    "a name": "import socket; socket.getaddrinfo('example.invalid', 80)",
    "http.client": "import http.client as h; h.HTTPSConnection('192.0.2.1', timeout=1).request('GET', '/')",
    "a swallowed failure": "import socket\ntry: socket.create_connection(('192.0.2.1', 80))\nexcept OSError: pass",
    "a datagram": "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "asyncio": "import asyncio as a; a.run(a.open_connection('192.0.2.1', 80))",
    "the hub": "from huggingface_hub import HfApi; HfApi().model_info('bert-base-uncased', timeout=1)",
}


def test_the_control_calls_are_caught(tmp_path: Path) -> None:
    caught = 0
    for number, code in enumerate(CALLS.values()):
        attempts = tmp_path / f"attempts-{number}"
        command = [sys.executable, "-c", code]
        subprocess.run(command, env=environment(attempts), capture_output=True, timeout=120, check=False)
        caught += attempts.exists() and bool(attempts.read_text())
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "x.html").write_text('<script src="https://cdn.example/x.js"></script>')
    record("offline (control)", calls=len(CALLS), caught=caught)
    assert caught == len(CALLS)
    assert list(addresses_in(tmp_path / "page")) == ["x.html"]
