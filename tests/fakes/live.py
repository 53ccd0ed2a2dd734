"""Live: an ASGI application behind a real socket, so that kills, streams and hang-ups are real."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from server.patience import patient


def wait_until(condition: Callable[[], Any], *, seconds: float = 10.0) -> None:
    """Return as soon as the condition holds; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still waiting after {seconds} s")
        time.sleep(0.005)


class LiveServer:
    """Uvicorn in a thread on a free loopback port; it keeps the port over a restart."""

    def __init__(self, app: Any, *, client_seconds: float = 60.0) -> None:
        self._app = app
        self._protocol = patient(client_seconds)
        self.port = 0
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, and return once requests are answered."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            http=self._protocol,  # as the gateway's own server
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=75,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(server, listener), daemon=True)
        self._thread.start()
        wait_until(lambda: server.started)

    def stop(self) -> None:
        """Finish the requests under way and stop listening."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._server = self._thread = None

    def kill(self) -> None:
        """Cut every connection and stop listening, as a killed process does."""
        server, loop = self._server, self._loop
        assert server is not None
        assert loop is not None
        server.force_exit = True
        loop.call_soon_threadsafe(_cut_connections, server)
        self.stop()

    def _run(self, server: uvicorn.Server, listener: socket.socket) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await server.serve(sockets=[listener])

        asyncio.run(serve())


def _cut_connections(server: uvicorn.Server) -> None:
    for connection in list(server.server_state.connections):
        transport: Any = connection.transport
        transport.abort()


@contextlib.contextmanager
def live(app: Any, *, client_seconds: float = 60.0) -> Iterator[LiveServer]:
    """Serve an application for the length of a block."""
    server = LiveServer(app, client_seconds=client_seconds)
    try:
        yield server
    finally:
        server.stop()
