"""The control of the load: a service as many are written. It keeps what it is asked, shares one variable between all
requests, and answers by what came before.
"""

import json
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar[dict[str, Any]] = {}
    kept: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        Handler.asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Handler.kept.append(b"x" * 200_000)
        time.sleep(0.01)
        text = str(Handler.asked.get("text"))
        hits = [{"row": f"{text}/{len(Handler.kept) % 7}", "score": zlib.crc32(text.encode()) / 2**32}]
        body = json.dumps({"hits": hits}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.request_queue_size = 128
    print(f"rows at http://127.0.0.1:{server.server_address[1]} ", flush=True)
    server.serve_forever()
