"""A DICOMweb server of a few files that answers as badly as a test says."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit


class File(NamedTuple):
    """A file with what a query says of it."""

    study: str
    series: str
    instance: str
    content: bytes
    patient: str = "P1"


class Answer(NamedTuple):
    """What the server sends; `cut` bytes of the body are announced and not sent."""

    status: int = 200
    kind: str = "application/dicom+json"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    cut: int = 0


def elements(**values: str) -> dict[str, object]:
    from pydicom.datadict import tag_for_keyword

    return {f"{tag_for_keyword(name):08X}": {"vr": "UI", "Value": [value]} for name, value in values.items()}


def multipart(content: bytes, end: bytes = b"\r\n--zz--\r\n", kind: bytes = b"application/dicom") -> Answer:
    body = b"--zz\r\nContent-Type: " + kind + b"\r\n\r\n" + content + end
    return Answer(200, 'multipart/related; type="application/dicom"; boundary=zz', body)


class FakeDicomWeb:
    """The server.

    Args:
        files: what it holds.
    """

    def __init__(self, files: list[File], url: str = "") -> None:
        self.files = files
        self.url = url
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []
        self.page = 1000
        self.knows_offsets = True
        self.knows_filters = True
        # path, how often it was asked before -> what to answer in place of the right answer
        self.fault: Callable[[str, int], Answer | None] = lambda path, times: None

    def answer(self, address: str) -> Answer:
        path, query = urlsplit(address).path, parse_qs(urlsplit(address).query)
        times = self.requests.count(path)
        self.requests.append(path)
        if (fault := self.fault(path, times)) is not None:
            return fault
        parts = path.strip("/").split("/")
        if parts[:1] == ["studies"] and len(parts) == 1:
            wanted = query.get("StudyInstanceUID", query.get("0020000D", [None]))[0]
            found = {file.study: file for file in self.files if wanted in (None, file.study) or not self.knows_filters}
            rows = [elements(StudyInstanceUID=uid, PatientID=file.patient) for uid, file in found.items()]
            return self._page(rows, query)
        if parts[2:] == ["instances"]:
            own = [file for file in self.files if file.study == parts[1]]
            rows = [
                elements(StudyInstanceUID=f.study, SeriesInstanceUID=f.series, SOPInstanceUID=f.instance) for f in own
            ]
            return self._page(rows, query)
        content = next((file.content for file in self.files if file.instance == parts[-1]), None)
        return Answer(404) if content is None else multipart(content)

    def _page(self, rows: list[dict[str, object]], query: dict[str, list[str]]) -> Answer:
        start = int(query.get("offset", ["0"])[0]) if self.knows_offsets else 0
        return Answer(body=json.dumps(rows[start : start + self.page]).encode())


@contextmanager
def running_fake(files: list[File], certificate: Path | None = None) -> Iterator[FakeDicomWeb]:
    """The server on the loopback.

    Args:
        certificate: a PEM file with key and certificate, for https.
    """
    fake = FakeDicomWeb(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.authorizations.append(self.headers.get("Authorization"))
            answer = fake.answer(self.path)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body) + answer.cut))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    fake.url = f"http{'' if certificate is None else 's'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
