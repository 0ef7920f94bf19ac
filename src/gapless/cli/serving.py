"""`gapless serve`: a collection's API and page, on this computer."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gapless.cli.verb import Arguments, Outcome, Parser, Verb
from gapless.core.errors import UsageError, missing_extra

HOST = "127.0.0.1"
BACKLOG = 128


def serve_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--model", nargs="+", default=None, help="where the collection's model is now")
    parser.add_argument("--allow_host", nargs="+", default=[], help="further names that browsers may call it by")
    parser.add_argument("--max_upload_mb", type=float, default=20.0, help="largest image")


def serve(args: Arguments) -> Outcome:
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise missing_extra(str(error.name), "web") from None
    from gapless.search.searcher import Searcher
    from gapless.server.app import create_app

    if not 0 < args.max_upload_mb <= 1000:
        raise UsageError(f"--max_upload_mb lies between 0 and 1000, got {args.max_upload_mb}")
    with listening(args.port) as listener:  # first: a port in use is said before the model is loaded
        searcher = Searcher.open(args.collection, args.model)
        searcher.warm()
        app = create_app(searcher, hosts=args.allow_host, max_upload=int(args.max_upload_mb * 1e6))
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        sys.stderr.write(f"{searcher.collection.count():,} rows at {address} (Ctrl-C ends it)\n")
        sys.stderr.flush()
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            access_log=False,  # who asked for what is nobody's business
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
        )
        uvicorn.Server(config).run(sockets=[listener])
    return Outcome({"address": address}, "")


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that listens on this computer only."""
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


VERBS = {"serve": Verb("a collection's search page and API, on this computer", serve_arguments, serve)}
