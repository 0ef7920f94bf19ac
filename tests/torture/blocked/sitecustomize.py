"""Put first on PYTHONPATH: every look beyond this computer is written to the file that ATTEMPTS names, and fails."""

import os
import socket
from collections.abc import Callable
from typing import Any

HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)


def refuse(what: str, where: Any) -> None:
    with open(os.environ["ATTEMPTS"], "a") as stream:
        stream.write(f"{what} {where!r}\n")
    raise OSError(101, "Network is unreachable")


def guarded(name: str, real: Callable[..., Any], place: int) -> Callable[..., Any]:
    """The real function for this computer, a refusal for any other; the address is the argument number `place`."""

    def call(*arguments: Any, **options: Any) -> Any:
        where = arguments[place] if len(arguments) > place else options.get("host")
        host = where[0] if isinstance(where, tuple) else where
        if not isinstance(host, bytes) and host not in HERE and not str(host).startswith("/"):
            refuse(name, where)
        return real(*arguments, **options)

    return call


class Socket(socket.socket):
    """A socket that knows this computer alone."""

    connect = guarded("connect", socket.socket.connect, 1)
    connect_ex = guarded("connect_ex", socket.socket.connect_ex, 1)

    def sendto(self, data: Any, *rest: Any) -> Any:
        if isinstance(rest[-1], tuple) and rest[-1][0] not in HERE:
            refuse("sendto", rest[-1])
        return super().sendto(data, *rest)


socket.socket = Socket  # type: ignore[misc]
for function in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
    setattr(socket, function, guarded(function, getattr(socket, function), 0))
