"""Whether Redis answers is seen without traffic."""

import asyncio

from prometheus_client import REGISTRY

from server.store_watch import watch_store
from tests.fakes.memory_store import MemoryStore


async def test_a_lost_redis_and_its_return_are_both_seen() -> None:
    store, seen = MemoryStore(), []
    watching = asyncio.create_task(watch_store(store, interval_seconds=0))
    for is_away in (False, True, False):
        store.is_away = is_away
        for _ in range(3):  # the watch has its turn
            await asyncio.sleep(0)
        seen.append(REGISTRY.get_sample_value("loragen_store_up"))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert seen == [1, 0, 1]
