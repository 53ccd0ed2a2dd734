"""A flood's clients, in a process of their own: what they cost must not delay who is measured."""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import httpx

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class FloodClients:
    """Who floods what: so many requests are under way at any time."""

    url: str
    headers: dict[str, str]
    clients: int
    max_tokens: int


@contextmanager
def flooding(spec: FloodClients, outcomes: Counter[str]) -> Iterator[None]:
    """Flood until the block ends; what came of the requests is added to `outcomes`.

    Raises:
        RuntimeError: an answer held an error, or the clients ended by themselves.
    """
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_run, args=(spec, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(60) or ours.recv() != "begun":
            raise RuntimeError("the flood did not begin")
        yield
        ours.send("end")
        told: dict[str, int] = ours.recv()
        outcomes.update(told)
    except EOFError as error:
        raise RuntimeError("the flood's clients ended by themselves") from error
    finally:
        process.terminate()
        process.join()


def _run(spec: FloodClients, told: Connection) -> None:
    outcomes = asyncio.run(_flood(spec, told))
    told.send(dict(outcomes))


async def _flood(spec: FloodClients, told: Connection) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=spec.url, timeout=600, limits=limits) as client:
        asking = [
            asyncio.create_task(_ask_again(client, spec, number, outcomes))
            for number in range(spec.clients)
        ]
        told.send("begun")
        end = asyncio.create_task(asyncio.to_thread(told.recv))
        await asyncio.wait([end, *asking], return_when=asyncio.FIRST_COMPLETED)
        for each in asking:
            each.cancel()
        for result in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
    return outcomes


async def _ask_again(
    client: httpx.AsyncClient, spec: FloodClients, number: int, outcomes: Counter[str]
) -> None:
    body: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": f"Question {number}: who are you?"}],
        "max_tokens": spec.max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    while True:
        async with client.stream(
            "POST", "/v1/chat/completions", json=body, headers=spec.headers
        ) as answer:
            text = b"".join([part async for part in answer.aiter_raw()])
        if answer.is_success and not text.endswith(b"data: [DONE]\n\n"):
            raise RuntimeError(f"an answer that broke off: {text[-300:]!r}")
        outcomes["answered" if answer.is_success else str(answer.status_code)] += 1
        if answer.is_error:
            await asyncio.sleep(0.05)  # it does not listen to retry-after
