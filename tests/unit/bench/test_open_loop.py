"""Requests that come when they come: each is sent in its time, and the late ones are counted."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from bench.arrivals import Arrival
from bench.load import Call, ask
from bench.open_loop import Limits, OpenLoop

STUCK = Call("http://stuck")
QUICK = Call("http://quick")


class Answer(httpx.AsyncByteStream):
    """The stream of an answer of three tokens; of a stuck worker, none."""

    def __init__(self, *, is_stuck: bool) -> None:
        self._is_stuck = is_stuck

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield _event({"role": "assistant", "content": ""})
        if self._is_stuck:
            await asyncio.Event().wait()
        for text in ("a", "", "c"):
            yield _event({"content": text})
        usage = {"completion_tokens": 3, "prompt_tokens": 9, "prompt_tokens_details": None}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
        yield b"data: [DONE]\n\n"


def _event(delta: dict[str, str]) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n".encode()


def client() -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Answer(is_stuck=request.url.host == "stuck"))

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def requests(*calls: Call) -> list[tuple[Arrival, Call, str]]:
    return [(Arrival(0.01 * number, 16, 16), call, "hi") for number, call in enumerate(calls)]


async def test_a_reply_says_when_its_tokens_came() -> None:
    async with client() as http:
        first: list[bool] = []
        reply = await ask(
            http, QUICK, question="hi", max_tokens=3, on_first_token=lambda: first.append(True)
        )
    assert first == [True]
    assert (reply.output_tokens, reply.prompt_tokens, reply.cached_tokens) == (3, 9, 0)
    assert 0 < reply.first_token_seconds <= reply.last_token_seconds
    gap = (reply.last_token_seconds - reply.first_token_seconds) / 2
    assert reply.token_gap_seconds == pytest.approx(gap)


async def test_all_are_answered_where_none_is_late() -> None:
    async with client() as http:
        loop = OpenLoop(http, Limits(60, 60), allowed=0)
        assert await loop.offer(requests(*[QUICK] * 5)) == 0
    assert len(loop.replies) == 5


async def test_it_ends_once_more_are_late_than_may_be() -> None:
    async with client() as http:
        loop = OpenLoop(http, Limits(0.3, 60), allowed=1)
        assert await loop.offer(requests(STUCK, STUCK, STUCK)) > 1
    assert not loop.replies


async def test_tokens_that_come_too_slowly_are_late_too() -> None:
    async with client() as http:
        loop = OpenLoop(http, Limits(60, 0.0), allowed=5)
        assert await loop.offer(requests(QUICK, QUICK)) == 2


async def test_a_refused_request_ends_the_run() -> None:
    refuse = httpx.MockTransport(lambda _: httpx.Response(400, text="no such recipe"))
    async with httpx.AsyncClient(transport=refuse) as http:
        loop = OpenLoop(http, Limits(60, 60), allowed=9)
        with pytest.raises(RuntimeError, match="400: no such recipe"):
            await loop.offer(requests(QUICK, STUCK))
