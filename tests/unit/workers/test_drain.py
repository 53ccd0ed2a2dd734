"""A worker's drain: what runs is answered, nothing new is taken, and only then the end comes."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import uvloop
from fastapi import FastAPI

from workers.drain import Drain, DrainingLoop, DrainMiddleware


class Service:
    """A worker behind a drain, with one slow route."""

    def __init__(self, *, seconds: float = 30.0) -> None:
        self.drain = Drain(seconds=seconds)
        self.release = asyncio.Event()
        self.ended = asyncio.Event()
        self.inside = 0
        app = FastAPI()
        app.add_api_route("/v1/slow", self._slow, methods=["POST"])
        for path in ("/health", "/metrics"):
            app.add_api_route(path, self._open)
        app.add_middleware(DrainMiddleware, drain=self.drain)
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


async def ends(service: Service) -> None:
    await asyncio.wait_for(service.ended.wait(), 5)


async def test_an_idle_worker_ends_at_once() -> None:
    service = Service()
    assert await service.status("GET", "/health") == 200
    service.drain.begin(service.ended.set)
    await ends(service)


async def test_what_runs_is_answered_before_the_end_and_nothing_new_is_taken() -> None:
    service = Service()
    asked = await service.asking()
    service.drain.begin(service.ended.set)
    assert await service.status("POST", "/v1/slow") == 503
    assert await service.status("GET", "/health") == 503
    assert await service.status("GET", "/metrics") == 200
    assert not service.ended.is_set()
    service.release.set()
    assert await asked == 200
    await ends(service)


async def test_what_takes_too_long_does_not_hold_up_the_end() -> None:
    service = Service(seconds=0.01)
    asked = await service.asking()
    service.drain.begin(service.ended.set)
    await ends(service)
    asked.cancel()


async def test_a_second_signal_is_the_end_at_once() -> None:
    service = Service()
    asked = await service.asking()
    service.drain.begin(service.ended.set)
    service.drain.begin(service.ended.set)
    assert service.ended.is_set()
    asked.cancel()


def on_draining_loop(test: Callable[[DrainingLoop], Awaitable[None]]) -> None:
    drain = Drain(seconds=30)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DrainingLoop)
        await test(loop)

    uvloop.run(run(), loop_factory=partial(DrainingLoop.over, drain))


def test_a_handler_of_a_signal_is_called_when_the_drain_is_over() -> None:
    async def run(loop: DrainingLoop) -> None:
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.drain.enter()
        os.kill(os.getpid(), signal.SIGTERM)
        while not loop.drain.has_begun:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not ended.is_set()
        loop.drain.leave()
        await asyncio.wait_for(ended.wait(), 5)

    on_draining_loop(run)
