"""Drain of a worker: told to end, it answers what it has and takes nothing new; then vLLM ends.

vLLM 0.32 drains too (`--shutdown-timeout`), but takes requests meanwhile, and answers them with
finish_reason "abort" as if they were complete; and where a stream outlasts its deadline, it waits
for ever. So its handler of the signal is called only when nothing is under way any more.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Self, TypeVarTuple

import uvloop
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen.drain import Drain
from loragen.errors import Unavailable
from workers.middleware import OPEN_PATHS, refuse

logger = logging.getLogger("vllm.loragen")  # below "vllm": its handlers and level apply

_Arguments = TypeVarTuple("_Arguments")


class DrainMiddleware:
    """Pure ASGI middleware that refuses requests once the drain has begun.

    /health is refused too: gateways and balancers then send elsewhere. A stream that the drain cuts
    off is hung up on, which whoever asked takes for a lost worker; a request that has no answer yet
    is refused like a new one.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or scope["path"] == "/metrics":
            await self._app(scope, receive, send)
        elif self._drain.has_begun:
            await refuse(_ending(), scope, receive, send)
        elif scope["path"].startswith(OPEN_PATHS):
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit: asyncio.Timeout | None = None
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with self._drain.limit() as limit:
                await self._app(scope, receive, send_on)
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            logger.warning("request cut off")
            if not has_begun:  # else uvicorn would answer 500, which no gateway sends elsewhere
                await refuse(_ending(), scope, receive, send)


def _ending() -> Unavailable:
    return Unavailable("the worker is shutting down", retry_after=1.0)


class DrainingLoop(uvloop.Loop):
    """An event loop whose handlers of signals are called when the drain is over.

    A second signal ends the drain.
    """

    drain: Drain
    _seconds: float
    _ending: asyncio.Task[None]

    @classmethod
    def over(cls, drain: Drain, *, seconds: float) -> Self:
        """Return a loop with a drain of at most so many seconds."""
        loop = cls()
        loop.drain = drain
        loop._seconds = seconds
        return loop

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Arguments], object], *args: *_Arguments
    ) -> None:
        """Call `callback` when the signal has come and the drain is over."""
        super().add_signal_handler(sig, self._drain, partial(callback, *args))

    def _drain(self, end: Callable[[], object]) -> None:
        if self.drain.has_begun:
            self.drain.begin(seconds=0)
            return
        logger.info("draining")
        self.drain.begin(seconds=self._seconds)
        self._ending = self.create_task(self._end(end))

    async def _end(self, end: Callable[[], object]) -> None:
        await self.drain.wait_idle()
        end()
