"""Nothing that was served is lost silently, and nothing is counted twice."""

import asyncio
from datetime import date

import pytest
from prometheus_client import REGISTRY

from loragen.limits import Admission
from loragen.tenants import OPEN_TENANT, Tenant
from loragen.usage import Numbers
from server.answer import Provenance
from server.gatekeeper import Entry, Gatekeeper
from server.usage_meter import UsageMeter
from server.visit import Visit
from tests.fakes.memory_limiter import MemoryLimiter
from tests.fakes.memory_store import MemoryStore
from tests.fakes.memory_tenants import MemoryTenants
from tests.fakes.memory_usage import MemoryUsage

DAY = date(2026, 3, 1)
GATEKEEPER = Gatekeeper(MemoryLimiter(), is_open_without_store=True, retry_seconds=1)


@pytest.fixture
def usage() -> MemoryUsage:
    return MemoryUsage(MemoryStore(), MemoryTenants())


def meter_of(usage: MemoryUsage, *, max_entries: int = 100) -> UsageMeter:
    return UsageMeter(usage, max_entries=max_entries, day=lambda: DAY)


def visit(model: str = "demo", *, is_served: bool = True) -> Visit:
    """Return a request that has ended."""
    ended = Visit(Tenant(id=OPEN_TENANT, created_at=0), GATEKEEPER, Entry(Admission(None, None)))
    if is_served:
        ended.tally.read({"prompt_tokens": 5, "completion_tokens": 3})
        ended.tally.served = (model, Provenance(mode="compiled", saved_prompt_tokens=40))
    return ended


async def total(usage: MemoryUsage) -> Numbers:
    usage.is_away = usage.loses_answers = False
    return sum((await usage.read(OPEN_TENANT, since=DAY, until=DAY)).values(), Numbers())


def lost() -> float:
    return REGISTRY.get_sample_value("loragen_usage_lost_total") or 0.0


async def test_what_was_served_is_written_down(usage: MemoryUsage) -> None:
    meter = meter_of(usage)
    for _ in range(3):
        meter.count(visit())
    meter.count(visit(is_served=False))
    assert await meter.flush()
    assert await meter.flush()
    assert await total(usage) == Numbers(3, 15, 120, 9)


async def test_while_redis_is_away_it_is_kept_and_then_written_once(usage: MemoryUsage) -> None:
    meter = meter_of(usage)
    before = lost()
    usage.is_away = True
    for _ in range(5):
        meter.count(visit())
        assert not await meter.flush()
    usage.is_away = False
    assert await meter.flush()
    assert await meter.flush()
    assert (await total(usage)).requests == 5
    assert lost() == before


async def test_an_answer_that_was_lost_does_not_count_twice(usage: MemoryUsage) -> None:
    meter = meter_of(usage)
    meter.count(visit())
    usage.loses_answers = True
    for _ in range(3):
        assert not await meter.flush()
    usage.loses_answers = False
    assert await meter.flush()
    assert (await total(usage)).requests == 1


async def test_beyond_its_bound_it_says_how_many_are_lost(usage: MemoryUsage) -> None:
    meter = meter_of(usage, max_entries=10)
    before = lost()
    for number in range(15):
        meter.count(visit(f"model-{number}"))
    meter.count(visit("model-0"))  # its entry is there
    assert lost() == before + 5
    assert await meter.flush()
    assert (await total(usage)).requests == 11


async def test_at_its_end_it_writes_the_rest_or_says_how_many_are_lost(usage: MemoryUsage) -> None:
    before = lost()
    meter = meter_of(usage)
    meter.count(visit())
    await meter.close()
    assert (await total(usage)).requests == 1
    assert lost() == before
    usage.is_away = True
    meter.count(visit())
    await meter.flush()
    meter.count(visit())
    await meter.close()
    assert lost() == before + 2


async def test_more_than_one_batch_is_written_whole(usage: MemoryUsage) -> None:
    meter = meter_of(usage, max_entries=2_000)
    for number in range(1_200):
        meter.count(visit(f"model-{number}"))
    flushed = await asyncio.gather(*(meter.flush() for _ in range(5)))
    assert all(flushed)
    assert (await total(usage)).requests == 1_200
    assert len(usage._batches) == 3
