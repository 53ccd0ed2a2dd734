"""Crowds: two hundred requests of a limited tenant at once, half of them at each gateway."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.fakes.gateway import MODEL, Gateway
from tests.fakes.limited import CHAT, Held, Limited, tokens_left, until

pytestmark = pytest.mark.redis


def usage_and_reservation(gate: Gateway) -> tuple[int, int]:
    """Ask as the first of the tenant; return the tokens it took, and what was reserved for it."""
    reply = gate.ask("hi", max_tokens=100)
    limit, left = (
        int(reply.headers[f"x-ratelimit-{what}-tokens"]) for what in ("limit", "remaining")
    )
    assert limit - left > 100
    return reply.json()["usage"]["total_tokens"], limit - left


def two_hundred(
    client: httpx.AsyncClient,
    two: tuple[Gateway, Gateway],
    path: str,
    body: Callable[[int], dict[str, Any]],
) -> list["asyncio.Task[httpx.Response]"]:
    """Send two hundred requests of the tenant at once, half of them to each gateway."""
    headers = dict(two[0].http.headers)
    return [
        asyncio.create_task(
            client.post(two[number % 2].server.url + path, json=body(number), headers=headers)
        )
        for number in range(200)
    ]


async def test_of_two_hundred_clients_of_two_gateways_as_many_get_in_as_may(
    limited: Limited, two: tuple[Gateway, Gateway], many: httpx.AsyncClient
) -> None:
    limited(requests_per_minute=50, tokens_per_minute=2_000)
    chat = {**CHAT, "max_tokens": 2}
    replies = await asyncio.gather(*two_hundred(many, two, "/v1/chat/completions", lambda _: chat))
    codes = [reply.status_code for reply in replies]
    assert set(codes) <= {200, 429}, next(r.text for r in replies if r.status_code >= 500)
    assert (codes.count(200), codes.count(429)) == (50, 150)
    assert sum(len(gate.worker.seen) for gate in two) == 50


@pytest.mark.parametrize(("places", "tokens"), [(7, 100_000), (200, 1_000)])
async def test_two_hundred_at_once_hold_no_more_than_may_run_and_settle_what_they_held(
    limited: Limited,
    two: tuple[Gateway, Gateway],
    many: httpx.AsyncClient,
    held: Held,
    places: int,
    tokens: int,
) -> None:
    limited(concurrent_requests=places, tokens_per_minute=tokens)
    used, reserved = usage_and_reservation(two[0])
    most = min(places, (tokens - used) // reserved)
    assert 5 < most < 12
    for gate in two:
        gate.worker.hold = True
    chat = {**CHAT, "max_tokens": 100}
    asked = two_hundred(many, two, "/v1/chat/completions", lambda _: chat)
    await until(lambda: sum(each.done() for each in asked) == 200 - most)
    await until(lambda: sum(gate.worker.held for gate in two) == most)
    assert held() == (most, used + most * reserved)
    for gate in two:
        gate.worker.hold = False
    replies = await asyncio.gather(*asked)
    codes = [reply.status_code for reply in replies]
    assert (codes.count(200), codes.count(429)) == (most, 200 - most)
    used += sum(r.json()["usage"]["total_tokens"] for r in replies if r.status_code == 200)
    assert held() == (0, used)
    assert tokens_left(two[1]) == tokens - used


async def streamed(
    client: httpx.AsyncClient, gate: Gateway, begun: list[int], leaving: asyncio.Event | None
) -> int:
    """Begin a stream that halts after two pieces; leave it there, or return its usage."""
    body = {**CHAT, "stream": True, "max_tokens": 100, "stream_options": {"include_usage": True}}
    url, headers = gate.server.url + "/v1/chat/completions", dict(gate.http.headers)
    last = ""
    async with client.stream("POST", url, json=body, headers=headers) as reply:
        pieces = 0
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            last, pieces = line, pieces + 1
            if pieces == 2:
                begun.append(1)
                if leaving is not None:
                    await leaving.wait()
                    return 0
    return int(json.loads(last.removeprefix("data: "))["usage"]["total_tokens"])


async def test_half_of_two_hundred_streams_are_left_and_nothing_stays_held(
    limited: Limited, two: tuple[Gateway, Gateway], many: httpx.AsyncClient, held: Held
) -> None:
    limited(concurrent_requests=200, tokens_per_minute=100_000)
    used, reserved = usage_and_reservation(two[0])
    for gate in two:
        gate.worker.hold_after = 2
    begun: list[int] = []
    leaving = asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        leavers, stayers = (
            [
                clients.create_task(streamed(many, two[number % 2], begun, event))
                for number in range(100)
            ]
            for event in (leaving, None)
        )
        await until(lambda: len(begun) == 200)
        assert held() == (200, used + 200 * reserved)
        leaving.set()
        await asyncio.wait(leavers)
        await until(lambda: sum(gate.worker.abandoned for gate in two) == 100)
        await until(lambda: held()[0] == 100)
        used += 100 * (reserved - 100 + 2)  # the prompt, and what passed
        assert held() == (100, used + 100 * reserved)
        for gate in two:
            gate.worker.hold_after = None
    used += sum(each.result() for each in stayers)
    assert held() == (0, used)
    assert tokens_left(two[1]) == 100_000 - used


@pytest.mark.parametrize("limit", ["tasks", "compiles_per_minute"])
async def test_two_hundred_prompts_at_once_make_as_many_as_may_be(
    limited: Limited, two: tuple[Gateway, Gateway], many: httpx.AsyncClient, limit: str
) -> None:
    limited(**{limit: 30})
    asked = two_hundred(
        many,
        two,
        "/v1/tasks",
        lambda number: {"model": MODEL, "system_prompt": f"You are number {number}."},
    )
    replies = await asyncio.gather(*asked)
    codes = [reply.status_code for reply in replies]
    assert (codes.count(201), codes.count(429)) == (30, 170)
    assert sum(gate.generator.calls.total() for gate in two) == 30
