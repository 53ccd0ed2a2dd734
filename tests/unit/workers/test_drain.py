"""A worker's drain: what runs is answered, nothing new is taken, and only then the end comes."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import uvloop
from fastapi import FastAPI

from loragen.drain import Drain
from workers.drain import DrainingLoop, DrainMiddleware


class Service:
    """A worker behind a drain, with one slow route; `ended` is what vLLM would do."""

    def __init__(self, loop: DrainingLoop) -> None:
        self.loop = loop
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self.inside = 0
        loop.add_signal_handler(signal.SIGTERM, self.ended.set)
        app = FastAPI()
        app.add_api_route("/v1/slow", self._slow, methods=["POST"])
        for path in ("/health", "/metrics"):
            app.add_api_route(path, self._open)
        app.add_middleware(DrainMiddleware, drain=loop.drain)
        transport = httpx.ASGITransport(app=app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://worker")

    async def _slow(self) -> str:
        self.inside += 1
        await self.release.wait()
        return "answer"

    async def _open(self) -> str:
        return "ok"

    async def status(self, method: str, path: str) -> int:
        return (await self._client.request(method, path)).status_code

    async def asking(self) -> "asyncio.Task[int]":
        """Return a request that is being answered."""
        task = asyncio.create_task(self.status("POST", "/v1/slow"))
        while not self.inside:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        return task

    async def signal(self) -> None:
        """Be told to end."""
        os.kill(os.getpid(), signal.SIGTERM)
        while not self.loop.drain.has_begun:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)

    async def end(self) -> None:
        await asyncio.wait_for(self.ended.wait(), 5)


def on_loop(test: Callable[[Service], Awaitable[None]], *, seconds: float = 30.0) -> None:
    """Run a test as vLLM runs: on the draining loop."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DrainingLoop)
        await test(Service(loop))

    uvloop.run(run(), loop_factory=partial(DrainingLoop.over, Drain(), seconds=seconds))


def test_an_idle_worker_ends_at_once() -> None:
    async def test(service: Service) -> None:
        assert await service.status("GET", "/health") == 200
        await service.signal()
        await service.end()

    on_loop(test)


def test_what_runs_is_answered_before_the_end_and_nothing_new_is_taken() -> None:
    async def test(service: Service) -> None:
        asked = await service.asking()
        await service.signal()
        assert await service.status("POST", "/v1/slow") == 503
        assert await service.status("GET", "/health") == 503
        assert await service.status("GET", "/metrics") == 200
        assert not service.ended.is_set()
        service.release.set()
        assert await asked == 200
        await service.end()

    on_loop(test)


def test_what_takes_too_long_is_cut_off() -> None:
    async def test(service: Service) -> None:
        asked = await service.asking()
        await service.signal()
        await service.end()
        (result,) = await asyncio.gather(asked, return_exceptions=True)
        assert result == 503  # as of a worker that takes nothing new: gateways ask another

    on_loop(test, seconds=0.01)


def test_a_second_signal_cuts_off_what_runs() -> None:
    async def test(service: Service) -> None:
        asked = await service.asking()
        await service.signal()
        await service.signal()
        await service.end()
        await asyncio.gather(asked, return_exceptions=True)

    on_loop(test)
