"""Drain: a worker told to end answers what it has and takes nothing new; then vLLM ends.

vLLM 0.32 drains too (`--shutdown-timeout`), but keeps taking requests meanwhile, and answers them,
and whatever its deadline cuts off, with finish_reason "abort" as if they were complete. So its
handler of the signal is called only once the requests under way have been answered, or time is up.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Self, TypeVarTuple

import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from loragen.errors import Unavailable
from workers.middleware import OPEN_PATHS, refuse

logger = logging.getLogger("vllm.loragen")  # below "vllm": its handlers and level apply

_Arguments = TypeVarTuple("_Arguments")


class Drain:
    """The requests under way, and whether new ones are taken."""

    def __init__(self, *, seconds: float) -> None:
        """Take the longest time from the signal to the end."""
        self.has_begun = False
        self._seconds = seconds
        self._running = 0
        self._idle = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    def begin(self, end: Callable[[], object]) -> None:
        """Take no more requests, and call `end` once there are none; at once if called again."""
        if self._ending is not None:
            self._ending.cancel()
            end()
            return
        logger.info("draining", extra={"requests": self._running})
        self.has_begun = True
        self._notice()
        self._ending = asyncio.get_running_loop().create_task(self._end(end))

    def enter(self) -> None:
        """Count a request that begins."""
        self._running += 1

    def leave(self) -> None:
        """Count a request that was answered."""
        self._running -= 1
        self._notice()

    def _notice(self) -> None:
        if self.has_begun and self._running == 0:
            self._idle.set()

    async def _end(self, end: Callable[[], object]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                await self._idle.wait()
        end()


class DrainMiddleware:
    """Pure ASGI middleware that counts requests, and refuses them once the drain has begun.

    /health is refused too: gateways and balancers then send elsewhere.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._drain.has_begun and scope["path"] != "/metrics":
            error = Unavailable("the worker is shutting down", retry_after=1.0)
            await refuse(error, scope, receive, send)
            return
        if scope["path"].startswith(OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        self._drain.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.leave()


class DrainingLoop(uvloop.Loop):
    """An event loop whose handlers of signals are called when the drain is over."""

    drain: Drain

    @classmethod
    def over(cls, drain: Drain) -> Self:
        """Return a loop with a drain."""
        loop = cls()
        loop.drain = drain
        return loop

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Arguments], object], *args: *_Arguments
    ) -> None:
        """Call `callback` when the signal has come and the drain is over."""
        super().add_signal_handler(sig, self.drain.begin, partial(callback, *args))
