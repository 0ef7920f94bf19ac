"""`gapless serve`: a collection's API and page, on this computer."""

import sys

from gapless.cli.verb import SEARCH, Arguments, Outcome, Parser, Verb


def serve_arguments(parser: Parser) -> None:
    parser.add_argument("collection", help="what 'gapless index' wrote")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one")
    parser.add_argument("--fd", type=int, default=None, help="an inherited listening socket in place of a port")
    parser.add_argument("--model", nargs="+", default=None, help="where the collection's model is now")
    parser.add_argument("--in_memory", action="store_true", help="hold the vectors in memory, also beyond 4 GiB")
    parser.add_argument("--allow_host", nargs="+", default=[], help="further names that browsers may call it by")
    parser.add_argument("--max_upload_mb", type=float, default=20.0, help="largest image")


def serve(args: Arguments) -> Outcome:
    import gapless

    served = gapless.serve(
        args.collection,
        port=args.port,
        fd=args.fd,
        model=args.model,
        in_memory=args.in_memory,
        allow_host=args.allow_host,
        max_upload_mb=args.max_upload_mb,
        on_start=say_address,
    )
    return Outcome(served.as_json(), "")


def say_address(address: str, rows: int) -> None:
    """Write the address to stderr when the service is ready, for the user or program that waits for it."""
    sys.stderr.write(f"{rows:,} rows at {address} (Ctrl-C ends it)\n")
    sys.stderr.flush()


VERBS = {
    "serve": Verb(
        SEARCH, "a collection's search page and API, on this computer", "serve collection", serve_arguments, serve
    )
}
