"""The gatekeeper and the visits it lets in, also while Redis is away."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from loragen.errors import InvalidRequest, LimitExceeded, StoreUnavailable
from loragen.limits import Limits, Taken
from loragen.tenants import Tenant
from server import gatekeeper as module
from server.gatekeeper import Gatekeeper
from server.tally import Estimate
from server.visit import Visit
from tests.fakes.memory_limiter import MemoryLimiter


class Bench:
    """A gatekeeper over a fake limiter, both by one clock."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.now = 1_000.0
        self.limiter = MemoryLimiter(clock=lambda: self.now)
        self.gatekeeper = Gatekeeper(
            self.limiter,
            is_open_without_store=is_open,
            retry_seconds=2.0,
            clock=lambda: self.now,
        )

    async def visit(self, **limits: int) -> Visit:
        tenant = Tenant(id="acme", created_at=1, limits=Limits(**limits))
        return await Visit.begin(tenant, self.gatekeeper)


async def headers_of(visit: Visit) -> dict[str, str]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await visit.sending(send)({"type": "http.response.start", "status": 200, "headers": []})
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def estimate(prompt: int, generated: int, *, is_open_ended: bool = False) -> Estimate:
    return Estimate(prompt, generated, is_open_ended)


async def left(bench: Bench, **limits: int) -> str:
    """Return how many tokens a request that comes finds."""
    return (await headers_of(await bench.visit(**limits)))["x-ratelimit-remaining-tokens"]


async def test_without_limits_nobody_is_asked_and_nothing_is_said() -> None:
    bench = Bench()
    bench.limiter.is_away = True
    visit = await bench.visit()
    await visit.reserve(estimate(10, 10))
    assert (visit.refused, await headers_of(visit)) == (None, {})


async def test_every_answer_says_how_full_the_windows_are() -> None:
    bench = Bench()
    limits = {"requests_per_minute": 2, "tokens_per_minute": 100}
    visit = await bench.visit(**limits)
    await visit.reserve(estimate(10, 30))
    assert await headers_of(visit) == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "61.000s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "60",
        "x-ratelimit-reset-tokens": "61.000s",
    }
    await bench.visit(**limits)
    refused = await bench.visit(**limits)
    assert isinstance(refused.refused, LimitExceeded)
    assert (refused.refused.param, refused.refused.retry_after) == ("requests", 61.0)
    assert (await headers_of(refused))["x-ratelimit-remaining-requests"] == "0"


async def test_tokens_are_reserved_and_then_settled_by_what_was_used() -> None:
    bench = Bench()
    visit = await bench.visit(tokens_per_minute=100)
    await visit.reserve(estimate(20, 60))
    assert await left(bench, tokens_per_minute=100) == "20"
    visit.tally.read({"prompt_tokens": 15, "completion_tokens": 5})
    await visit.leave()
    await visit.leave()
    assert await left(bench, tokens_per_minute=100) == "80"


async def test_a_request_that_no_worker_answered_costs_no_tokens() -> None:
    bench = Bench()
    visit = await bench.visit(tokens_per_minute=100)
    await visit.reserve(estimate(20, 60))
    visit.tally.void()
    await visit.leave()
    assert await left(bench, tokens_per_minute=100) == "100"


async def test_a_request_that_ends_while_its_tokens_are_counted_costs_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    visit = await bench.visit(tokens_per_minute=100)
    counted, answered = asyncio.Event(), asyncio.Event()
    take = bench.limiter.take

    async def slow(*args: Any, **settings: Any) -> Taken:
        taken = await take(*args, **settings)
        counted.set()
        await answered.wait()
        return taken

    monkeypatch.setattr(bench.limiter, "take", slow)
    request = asyncio.create_task(visit.reserve(estimate(20, 60)))
    await counted.wait()
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    visit.tally.void()
    leaving = asyncio.create_task(visit.leave())
    answered.set()
    await leaving
    assert await left(bench, tokens_per_minute=100) == "100"


async def test_who_waits_for_a_visit_to_end_may_go_and_it_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    limits = {"tokens_per_minute": 100, "concurrent_requests": 1}
    visit = await bench.visit(**limits)
    await visit.reserve(estimate(20, 60))
    visit.tally.void()
    begun, answered = asyncio.Event(), asyncio.Event()
    settle = bench.limiter.settle

    async def slow(*args: Any, **settings: Any) -> None:
        begun.set()
        await answered.wait()
        await settle(*args, **settings)

    monkeypatch.setattr(bench.limiter, "settle", slow)
    sending = asyncio.create_task(visit.leave())
    await begun.wait()
    sending.cancel()
    await asyncio.wait([sending])
    answered.set()
    await visit.leave()
    assert (await bench.visit(**limits)).refused is None
    assert await left(bench, **limits) == "100"


async def test_a_place_is_free_again_whatever_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    limits = {"tokens_per_minute": 100, "concurrent_requests": 1}
    visit = await bench.visit(**limits)

    async def broken(*_: Any, **__: Any) -> Taken:
        raise RuntimeError("an answer of another shape")

    with monkeypatch.context() as patched:
        patched.setattr(bench.limiter, "take", broken)
        with pytest.raises(RuntimeError, match="another shape"):
            await visit.reserve(estimate(20, 60))
    await visit.leave()
    assert (await bench.visit(**limits)).refused is None


async def test_a_request_of_which_nobody_knows_what_it_cost_costs_all_it_could() -> None:
    bench = Bench()
    visit = await bench.visit(tokens_per_minute=100)
    await visit.reserve(estimate(20, 60))
    await visit.leave()
    assert await left(bench, tokens_per_minute=100) == "20"


async def test_more_tokens_than_are_left_are_refused_and_more_than_there_ever_are_a_400() -> None:
    bench = Bench()
    visit = await bench.visit(tokens_per_minute=100)
    await visit.reserve(estimate(20, 60))
    with pytest.raises(LimitExceeded) as caught:
        await (await bench.visit(tokens_per_minute=100)).reserve(estimate(20, 60))
    assert (caught.value.param, caught.value.retry_after) == ("tokens", 61.0)
    with pytest.raises(InvalidRequest, match="101 tokens") as wrong:
        await (await bench.visit(tokens_per_minute=100)).reserve(estimate(20, 81))
    assert wrong.value.param == "max_tokens"


async def test_a_request_that_names_no_maximum_takes_what_a_minute_has() -> None:
    bench = Bench()
    visit = await bench.visit(tokens_per_minute=100)
    await visit.reserve(estimate(20, 8_000, is_open_ended=True))
    assert await left(bench, tokens_per_minute=100) == "0"
    visit.tally.read({"prompt_tokens": 20, "completion_tokens": 10})
    await visit.leave()
    assert await left(bench, tokens_per_minute=100) == "70"


async def test_a_place_is_free_before_the_last_byte_leaves() -> None:
    bench = Bench()
    visit = await bench.visit(concurrent_requests=1)
    assert (await bench.visit(concurrent_requests=1)).refused is not None
    order: list[str] = []

    async def send(message: Message) -> None:
        free = (await bench.visit(concurrent_requests=1)).refused is None
        order.append(f"{message['type'].rpartition('.')[2]} {free}")

    sending = visit.sending(send)
    await sending({"type": "http.response.start", "status": 200})
    await sending({"type": "http.response.body", "body": b"x", "more_body": True})
    await sending({"type": "http.response.body", "body": b""})
    assert order == ["start False", "body False", "body True"]


async def test_what_runs_for_long_keeps_its_place_and_what_has_ended_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RENEWAL_SECONDS", 0.001)
    bench = Bench()
    visit = await bench.visit(concurrent_requests=1)
    renewing = asyncio.create_task(bench.gatekeeper.renew_forever())
    for _ in range(5):
        bench.now += 20
        await asyncio.sleep(0.02)
        assert (await bench.visit(concurrent_requests=1)).refused is not None
    await visit.leave()
    assert (await bench.visit(concurrent_requests=1)).refused is None
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)


LIMITED: dict[str, Any] = {
    "requests_per_minute": 0, "tokens_per_minute": 10, "compiles_per_minute": 0,
}  # fmt: skip


async def test_while_redis_is_away_requests_go_uncounted_and_it_is_not_asked_by_each() -> None:
    bench = Bench()
    bench.limiter.is_away = True
    for _ in range(3):
        visit = await bench.visit(**LIMITED)
        assert (visit.refused, await headers_of(visit)) == (None, {})
        await visit.reserve(estimate(1, 5))
        await bench.gatekeeper.take_compile(visit.tenant)
        await visit.leave()
        bench.now += 0.5
    bench.limiter.is_away = False
    assert (await bench.visit(**LIMITED)).refused is None  # not asked yet
    bench.now += 0.6
    assert (await bench.visit(**LIMITED)).refused is not None


async def test_or_they_are_refused_where_the_operator_says_so() -> None:
    bench = Bench(is_open=False)
    bench.limiter.is_away = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await bench.visit(**LIMITED)
    bench.limiter.is_away = False
    bench.now += 2.0
    assert (await bench.visit(**LIMITED)).refused is not None


async def test_compiles_are_counted() -> None:
    bench = Bench()
    visit = await bench.visit(compiles_per_minute=2)
    for _ in range(2):
        await bench.gatekeeper.take_compile(visit.tenant)
    with pytest.raises(LimitExceeded, match="2 prompts compiled a minute"):
        await bench.gatekeeper.take_compile(visit.tenant)
