"""More requests than the workers take: they wait in line, or are told when to come back."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import httpx
import openai
import pytest

from tests.fakes.gateway import MODEL, Gateway, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "a b c d e"}]}
PATH = "/v1/chat/completions"

Start = Callable[..., AbstractContextManager[Gateway]]


@pytest.fixture
def start(valkey: Valkey, namespace: str) -> Start:
    """Start a gateway with one place at its worker; keywords are its settings."""

    def starting(server: dict[str, Any] | None = None, **edge: Any) -> Any:
        store = redis_store(valkey.url, namespace)
        limits = {"max_outstanding": 1, "max_waiting": 2, **edge}
        return gateway(store, namespace, edge=limits, server=server)

    return starting


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def ask(gate: Gateway, **fields: Any) -> httpx.Response:
    return httpx.post(gate.server.url + PATH, json={**CHAT, **fields}, timeout=30)


def events_of(reply: httpx.Response) -> list[str]:
    return [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]


def waiting(gate: Gateway) -> float:
    return gate.metric("loragen_queue_requests", model=MODEL)


def is_longer(gate: Gateway, before: float) -> bool:
    return waiting(gate) > before


def fill(gate: Gateway, threads: ThreadPoolExecutor) -> list[Future[httpx.Response]]:
    """Hold the worker's one place and put two requests in line."""
    gate.worker.hold = True
    asked = [threads.submit(ask, gate)]
    wait_until(lambda: gate.worker.held == 1)
    for _ in range(2):
        before = waiting(gate)
        asked.append(threads.submit(ask, gate))
        wait_until(partial(is_longer, gate, before))
    return asked


def test_requests_wait_for_a_place_and_all_are_answered(
    start: Start, threads: ThreadPoolExecutor
) -> None:
    with start() as gate:
        asked = fill(gate, threads)
        assert gate.worker.held == 1
        gate.worker.hold = False
        assert [reply.result().status_code for reply in asked] == [200] * 3
        assert waiting(gate) == 0


def test_a_full_line_is_429_with_a_time_to_come_back(
    start: Start, threads: ThreadPoolExecutor
) -> None:
    with start() as gate:
        asked = fill(gate, threads)
        with pytest.raises(openai.RateLimitError) as caught:
            gate.client.chat.completions.create(**CHAT)
        assert (caught.value.code, caught.value.type) == ("overloaded", "rate_limit_error")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert len(gate.worker.seen) == 1
        gate.worker.hold = False
        assert [reply.result().status_code for reply in asked] == [200] * 3


def test_a_wait_that_is_too_long_is_429(start: Start, threads: ThreadPoolExecutor) -> None:
    with start(max_wait_seconds=0.1) as gate:
        gate.worker.hold = True
        first = threads.submit(ask, gate)
        wait_until(lambda: gate.worker.held == 1)
        reply = ask(gate)
        assert (reply.status_code, reply.json()["error"]["code"]) == (429, "overloaded")
        assert reply.headers["retry-after"]
        gate.worker.hold = False
        assert first.result().status_code == 200


def test_a_client_that_leaves_the_line_never_reaches_a_worker(
    start: Start, threads: ThreadPoolExecutor
) -> None:
    with start() as gate:
        gate.worker.hold = True
        holding = threads.submit(ask, gate)
        wait_until(lambda: gate.worker.held == 1)
        seen = len(gate.worker.seen)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(gate.server.url + PATH, json=CHAT, timeout=0.2)
        wait_until(lambda: waiting(gate) == 0)
        gate.worker.hold = False
        assert holding.result().status_code == 200
        assert len(gate.worker.seen) == seen


def test_when_the_last_worker_dies_those_in_line_get_503(
    start: Start, threads: ThreadPoolExecutor
) -> None:
    with start() as gate:
        asked = fill(gate, threads)
        gate.worker_server.kill()
        replies = [reply.result() for reply in asked]
        assert {reply.status_code for reply in replies} == {503}
        assert all(reply.headers["retry-after"] for reply in replies)
        assert {reply.json()["error"]["code"] for reply in replies} == {"worker_unavailable"}


def test_tasks_are_created_while_all_places_are_taken(
    start: Start, threads: ThreadPoolExecutor
) -> None:
    with start() as gate:
        asked = fill(gate, threads)
        assert gate.create("You are Ada.")["status"] == "ready"
        gate.worker.hold = False
        assert [reply.result().status_code for reply in asked] == [200] * 3


@pytest.mark.parametrize("where", ["at the worker", "in line"])
def test_the_deadline_is_of_the_whole_answer(
    start: Start, threads: ThreadPoolExecutor, where: str
) -> None:
    with start({"request_timeout_seconds": 1.0}) as gate:
        gate.worker.hold = True
        if where == "in line":
            threads.submit(ask, gate, stream=True)
            wait_until(lambda: gate.worker.held == 1)
        reply = ask(gate)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
        wait_until(lambda: gate.worker.held == 0 and waiting(gate) == 0)
        assert gate.worker.abandoned >= 1


def test_a_stream_may_last_longer_than_the_deadline_but_not_be_silent_so_long(
    start: Start,
) -> None:
    with start({"request_timeout_seconds": 0.4}) as gate:
        gate.worker.pause_seconds = 0.1
        events = events_of(ask(gate, stream=True))
        assert len(events) > 5
        assert events[-1] == "[DONE]"
        gate.worker.hold_after = 2
        *_, last = events_of(ask(gate, stream=True))
        assert json.loads(last)["error"]["code"] == "deadline_exceeded"
        wait_until(lambda: gate.worker.abandoned == 1)
