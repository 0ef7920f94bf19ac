"""`gapless serve` as one call: a collection's API and page on this computer, until Ctrl-C."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gapless.core.errors import UsageError, missing_extra
from gapless.core.results import Result

HOST = "127.0.0.1"
BACKLOG = 128


@dataclass(frozen=True)
class Served(Result):
    """A service that has ended.

    Args:
        address: where it was.
    """

    address: str


def serve(
    collection: str | Path,
    *,
    port: int = 8765,
    fd: int | None = None,
    model: str | Sequence[str] | None = None,
    in_memory: bool = False,
    allow_host: Sequence[str] = (),
    max_upload_mb: float = 20.0,
    on_start: Callable[[str, int], None] = lambda address, rows: None,
) -> Served:
    """Serve a collection's search page and API on this computer, until Ctrl-C or SIGTERM.

    After SIGTERM no connection is accepted, requests under way are answered, and the call returns. Ctrl-C raises
    KeyboardInterrupt.

    Examples:
        >>> import gapless
        >>> gapless.serve("collection", on_start=lambda address, rows: print(address))       # doctest: +SKIP

    Args:
        collection: what `gapless.index` wrote.
        port: 0 takes a free one.
        fd: the number of a listening socket that this process inherited, in place of a port: systemd gives 3. Processes
            that hold the same socket take turns, so that one can replace another and no connection is refused.
        model: where the collection's model is now; by default where it was when the collection was indexed.
        in_memory: hold the vectors in memory whatever their size; by default up to 4 GiB, and of more none.
        allow_host: further names that browsers may call it by.
        max_upload_mb: largest image, in megabytes, above 0 and at most 1000.
        on_start: called with the address and the number of rows when queries are answered.

    Raises:
        UsageError: no collection or model, a port in use, no listening socket of this computer at `fd`, an extra
            that is not installed.
        DataRefused: a damaged collection.
    """
    for package in ("fastapi", "jinja2", "python_multipart", "uvicorn"):
        if find_spec(package) is None:
            raise missing_extra(package, "web")
    import uvicorn

    from gapless.search.searcher import Searcher
    from gapless.server.app import create_app
    from gapless.server.stopping import FINISH_SECONDS, DrainingServer, sigterm_ends_well

    if not 0 < max_upload_mb <= 1000:
        raise UsageError(f"--max_upload_mb lies between 0 and 1000, got {max_upload_mb}")
    sockets = listening(port) if fd is None else inherited(fd)
    with sockets as listener:  # first: a port in use is said before the model is loaded
        searcher = Searcher.open(collection, model, in_memory=in_memory)
        searcher.warm()
        app = create_app(searcher, hosts=allow_host, max_upload=int(max_upload_mb * 1e6))
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        on_start(address, searcher.collection.count())
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            access_log=False,  # queries may name patients: no line of them goes to a log
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=FINISH_SECONDS,
        )
        with sigterm_ends_well():
            DrainingServer(config).run(sockets=[listener])
    return Served(address)


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that listens on this computer only.

    Raises:
        UsageError: no such port, or one that cannot be used.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port lies between 0 and 65535, got {port}")
    # The protocol by name: asyncio turns off Nagle's algorithm only where it is, and that waits 40 ms for the client.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(f"port {port} cannot be used ({reason}); choose another --port, or 0 for any") from None
        listener.listen(BACKLOG)
        yield listener


@contextmanager
def inherited(fd: int) -> Iterator[socket.socket]:
    """The listening socket that whoever started this process opened.

    Raises:
        UsageError: none of that number, or one that others than this computer reach.
    """
    advice = "name a TCP socket that listens on 127.0.0.1 and that this process inherited, such as 3 under systemd"
    try:
        listener = socket.socket(fileno=fd)
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"--fd {fd} is no socket ({getattr(error, 'strerror', None) or error}); {advice}") from None
    with listener:
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0
        if listener.family != socket.AF_INET or not listens or listener.getsockname()[0] != HOST:
            raise UsageError(f"--fd {fd} is no socket that can be served on; {advice}")
        yield listener
