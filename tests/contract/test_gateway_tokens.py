"""Tokens of limited tenants: what is taken before an answer, and what it has cost after."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.fakes.gateway import MODEL, Gateway
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


ONE_PLACE = {"max_outstanding": 1}


@contextmanager
def busy(gate: Gateway) -> Iterator[None]:
    """Keep the only place at the gateway's worker for the length of a block."""
    body = {**CHAT, "messages": [{"role": "user", "content": "word " * 60}], "stream": True}
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()  # whose end would close the stream
        assert next(lines).startswith("data: {")
        yield


@pytest.mark.parametrize("overrides", [{"edge": ONE_PLACE}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_left_in_line_costs_nothing(
    limited: Limited, many: httpx.AsyncClient, held: Held, stream: bool
) -> None:
    gate = limited(concurrent_requests=2, tokens_per_minute=1_000)
    url, headers = gate.server.url + "/v1/chat/completions", dict(gate.http.headers)
    body = {**CHAT, "max_tokens": 100, "stream": stream}
    gate.worker.hold_after = 1
    with busy(gate):
        before = held()
        asked = asyncio.create_task(many.post(url, json=body, headers=headers))
        await until(lambda: gate.metric("loragen_queue_requests", model=MODEL) == 1)
        assert held()[1] > before[1] + 100
        asked.cancel()
        await until(lambda: held()[0] == 1)
        assert held() == before


@pytest.mark.parametrize(
    "overrides", [{"edge": ONE_PLACE, "server": {"request_timeout_seconds": 5.0}}]
)
def test_a_request_whose_deadline_passes_in_line_costs_nothing(
    limited: Limited, held: Held
) -> None:
    gate = limited(concurrent_requests=2, tokens_per_minute=1_000)
    gate.worker.pause_seconds = 0.4  # or the stream would be too silent, too
    with busy(gate):
        before = held()
        assert gate.ask("hi", max_tokens=100).status_code == 504
        assert held() == before
