"""A server that ends without losing a request: SIGTERM stops new connections and lets those that are open finish.

uvicorn by itself closes every connection that has no request under way, also one that was just opened and whose request
is on its way; the client of that one would see a reset. Here open connections are served a little longer, and every
answer says that its connection closes, so that clients open the next one where somebody still listens.
"""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

DRAIN_SECONDS = 2.0  # for requests that are on their way on connections that are open
FINISH_SECONDS = 30  # for requests that are being answered
TICK = 0.05


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which after SIGTERM drains its connections; after Ctrl-C it ends at once, as uvicorn does."""

    drains = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.drains = self.drains or sig == signal.SIGTERM
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.drains:
            for server in self.servers:
                server.close()  # and its socket; another process that holds the same one goes on with what waits in it
            await self.drain()
        await super().shutdown(sockets)

    async def drain(self) -> None:
        """Serve the connections that are open until they close, for seconds at most."""
        end = time.monotonic() + DRAIN_SECONDS
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        await asyncio.sleep(TICK)  # what was accepted in the last moment is a connection after this
        while self.server_state.connections and time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(TICK)


@contextmanager
def sigterm_ends_well() -> Iterator[None]:
    """Inside, SIGTERM does nothing by itself: uvicorn takes it, ends the server, and raises it again at the end.

    Without this the process would die of the signal after all requests are answered, and a supervisor would take that
    for a failure. Only the main thread may set what a signal does; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
