"""Tokens of limited tenants: what is taken before an answer, and what it has cost after."""

import asyncio

import httpx
import pytest

from tests.fakes.limited import (
    CHAT,
    LONG_WINDOW_SECONDS,
    Held,
    Limited,
    error_of,
    tokens_left,
    until,
)
from tests.fakes.live import wait_until

pytestmark = pytest.mark.redis

WORDS = "one two three four five six seven eight"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_costs_the_tokens_it_used(limited: Limited, stream: bool) -> None:
    gate = limited(tokens_per_minute=1_000)
    reply = gate.ask(WORDS, max_tokens=100, stream=stream)
    assert reply.status_code == 200
    assert int(reply.headers["x-ratelimit-remaining-tokens"]) < 900  # reserved while it runs
    whole = gate.ask(WORDS, max_tokens=100).json()["usage"]
    assert tokens_left(gate) == 1_000 - 2 * whole["total_tokens"]
    assert ('"usage"' in reply.text) is not stream


def test_a_stream_that_is_left_costs_what_passed(limited: Limited) -> None:
    gate = limited(tokens_per_minute=1_000)
    gate.worker.hold_after = 3
    body = {**CHAT, "stream": True, "max_tokens": 100}
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = filter(None, reply.iter_lines())  # whose end would close the stream
        for _ in range(3):
            assert next(lines).startswith("data: {")
        reserved = 1_000 - tokens_left(gate)
        assert reserved > 100
    wait_until(lambda: tokens_left(gate) > 1_000 - reserved)
    assert tokens_left(gate) == 1_000 - (reserved - 100 + 3)  # the prompt, and what passed


def test_what_no_worker_answered_costs_no_tokens(limited: Limited) -> None:
    gate = limited(tokens_per_minute=1_000)
    gate.worker.fail_status = 500
    assert gate.ask(WORDS, max_tokens=100).status_code == 503
    assert tokens_left(gate) == 1_000


def test_tokens_that_are_not_left_are_refused(limited: Limited) -> None:
    gate = limited(tokens_per_minute=150)
    gate.worker.hold_after = 1
    body = {**CHAT, "stream": True, "max_tokens": 100}
    with gate.http.stream("POST", "/v1/chat/completions", json=body):
        refused = gate.ask("hi", max_tokens=100)
        assert error_of(refused) == (429, "rate_limit_exceeded", "tokens")
        assert 1 <= int(refused.headers["retry-after"]) <= LONG_WINDOW_SECONDS + 1
    never = gate.ask("hi", max_tokens=150)
    assert error_of(never) == (400, "invalid_request", "max_tokens")
    gate.worker.hold_after = None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_left_before_its_answer_begins_costs_all_it_could_and_frees_its_place(
    limited: Limited, many: httpx.AsyncClient, held: Held, stream: bool
) -> None:
    gate = limited(concurrent_requests=1, tokens_per_minute=150)
    gate.worker.hold = True
    url, headers = gate.server.url + "/v1/chat/completions", dict(gate.http.headers)
    body = {**CHAT, "max_tokens": 100, "stream": stream}
    asked = asyncio.create_task(many.post(url, json=body, headers=headers))
    await until(lambda: gate.worker.held == 1)
    places, reserved = held()
    assert places == 1
    assert reserved > 100
    asked.cancel()
    await until(lambda: held()[0] == 0)
    await until(lambda: gate.worker.abandoned == 1)
    gate.worker.hold = False
    refused = gate.ask("hi", max_tokens=100)
    assert error_of(refused) == (429, "rate_limit_exceeded", "tokens")
    assert 1 <= int(refused.headers["retry-after"]) <= LONG_WINDOW_SECONDS + 1
    served = gate.ask("hi", max_tokens=10)
    assert served.status_code == 200
    assert held() == (0, reserved + served.json()["usage"]["total_tokens"])
