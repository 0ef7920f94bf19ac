"""Middleware that checks the host, origin and size of every request and adds security headers to every answer.

The service listens on 127.0.0.1, but any page that is open in the same browser can send requests there. So a request
must name a host that the user allowed (DNS rebinding), other sites may not call the API, and nothing may be framed,
embedded, cached or sniffed. An internal error is answered with a sentence; neither it nor the log contains a query.
"""

import sys
import traceback
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
MAX_BODY = 1 << 20
DRAINED = 8  # times the limit: so much of a body that is too large is read and dropped before the answer


def refusal(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status_code=status)


class Guard:
    """ASGI middleware.

    Args:
        hosts: host names that may be asked for, without port.
        max_bodies: path -> most bytes of its body; `MAX_BODY` for all others.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], max_bodies: Mapping[str, int]) -> None:
        self.app = app
        self.hosts = hosts
        self.max_bodies = max_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = Answer(send)
        try:
            refused = self.refused(Headers(scope=scope), scope["path"])
            if refused is not None:
                await refused(scope, receive, answer)
                return
            limit = self.max_bodies.get(scope["path"], MAX_BODY)
            await self.app(scope, Body(receive, limit, declared_length(scope)), answer)
        except Exception as error:
            log_failure(error)
            if not answer.started:
                await refusal(500, "the service failed; its terminal says where")(scope, receive, answer)

    def refused(self, headers: Headers, path: str) -> JSONResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self.hosts:
            return refusal(400, "this host name is not allowed; open 127.0.0.1, or allow the name with --allow-host")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and path != "/":
            return refusal(403, "other sites may not call this service")
        return None


class Answer:
    """`send` with the security headers; a header that is there already stays."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self.send(message)


class Body:
    """`receive` that refuses a body above the limit, before or while it is read.

    Raises:
        HTTPException: 413. A body that is not much too large is read to its end and dropped piece by piece, because a
            client does not read the answer while it still sends.
    """

    def __init__(self, receive: Receive, limit: int, declared: int | None) -> None:
        self.receive = receive
        self.limit = limit
        self.declared = declared or 0
        self.read = 0

    async def __call__(self) -> Message:
        if self.declared > self.limit * DRAINED:
            raise self.too_large()
        message = await self.receive()
        self.read += len(message.get("body", b""))
        if max(self.declared, self.read) <= self.limit:
            return message
        while message.get("more_body") and self.read <= self.limit * DRAINED:
            message = await self.receive()
            self.read += len(message.get("body", b""))
        raise self.too_large()

    def too_large(self) -> HTTPException:
        return HTTPException(413, f"the request is larger than {self.limit / 1e6:.0f} MB")


def declared_length(scope: Scope) -> int | None:
    """The Content-Length, where it is a number."""
    value = Headers(scope=scope).get("content-length", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None


def host_name(value: str) -> str:
    """The name of a Host header, without the port, in lower case."""
    name, colon, port = value.rpartition(":")
    return (name if colon and port.isdecimal() else value).lower()


def log_failure(error: Exception) -> None:
    """Log the place of a failure on stderr without its message, which may contain a query."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    sys.stderr.write("\n  ".join([f"gapless: {type(error).__name__} while answering", *frames[-6:]]) + "\n")
