"""Serve: the HTTP server of the gateway, and how signals end it."""

import asyncio
import math
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from config.settings import ServerSettings
from loragen.drain import Drain
from server.patience import patient

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
MARGIN_SECONDS: Final = 2
"""For the last bytes of what was cut off, to clients that read slowly."""
KEEP_ALIVE_SECONDS: Final = 75
"""An idle connection is closed by the client first, or a request could meet a closed one: proxies
keep theirs for 60 seconds (nginx, AWS), uvicorn by default for 5."""


class DrainingServer(uvicorn.Server):
    """Uvicorn; the first signal drains it, a second one ends the process at once.

    After a drain the process exits with 0, where uvicorn would raise the signal again.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: ServerSettings,
        drain: Drain,
        *,
        beside: uvicorn.Server | None = None,
    ) -> None:
        """Take another server, if any, that runs in the same loop as long as this one."""
        seconds = settings.drain_delay_seconds + settings.drain_timeout_seconds
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=patient(settings.client_timeout_seconds),
            ws="none",  # nothing of ours speaks it
            log_config=None,
            access_log=False,
            proxy_headers=False,  # who the client is, its key says
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.ceil(seconds) + MARGIN_SECONDS,
        )
        super().__init__(config)
        self._drain = drain
        self._delay_seconds = settings.drain_delay_seconds
        self._seconds = seconds
        self._beside = beside

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal."""
        if self._beside is None:
            await super().serve(sockets)
            return
        serving = asyncio.create_task(self._beside.serve())
        try:
            await super().serve(sockets)
        finally:
            self._beside.should_exit = True
            await serving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals while the server runs."""
        loop = asyncio.get_running_loop()
        for signum in SIGNALS:
            loop.add_signal_handler(signum, self._end)
        try:
            yield
        finally:
            for signum in SIGNALS:
                loop.remove_signal_handler(signum)

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in SIGNALS:
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL)
        self._drain.begin(seconds=self._seconds)
        loop.call_later(self._delay_seconds, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self.should_exit = True


class SideServer(uvicorn.Server):
    """Uvicorn for a second application of the process; signals are the first one's."""

    def __init__(self, app: FastAPI, *, host: str, port: int, client_seconds: float) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=patient(client_seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=MARGIN_SECONDS,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield
