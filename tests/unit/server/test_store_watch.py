"""Whether Redis answers is seen without traffic."""

import asyncio

from prometheus_client import CollectorRegistry, Gauge

from server.store_watch import watch_store
from tests.fakes.memory_store import MemoryStore


async def test_a_lost_redis_and_its_return_are_both_seen() -> None:
    # A gauge of its own: gateways of other tests may run in this process and set the common one.
    registry = CollectorRegistry()
    is_up = Gauge("up", "", registry=registry)
    store, seen = MemoryStore(), []
    watching = asyncio.create_task(watch_store(store, is_up, interval_seconds=0))
    for is_away in (False, True, False):
        store.is_away = is_away
        for _ in range(3):  # the watch has its turn
            await asyncio.sleep(0)
        seen.append(registry.get_sample_value("up"))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert seen == [1, 0, 1]
