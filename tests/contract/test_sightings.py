"""Sightings keep one contract, with Redis and without."""

from collections.abc import AsyncIterator

import pytest

from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from loragen.sightings import Budget, RedisSightings, Sighting
from tests.contract.sightings_contract import BUDGET, TENANT, SightingsContract
from tests.fakes.memory_sightings import MemorySightings
from tests.fakes.valkey import Valkey


class TestMemorySightings(SightingsContract):
    """The fake."""

    @pytest.fixture
    def sightings(self) -> MemorySightings:
        """Nothing seen, nothing spent."""
        return MemorySightings(budget=BUDGET)

    async def test_sightings_and_budget_end_with_their_time(self) -> None:
        now = 0.0
        seen = MemorySightings(
            window_seconds=10, budget=Budget(tasks=1, seconds=100), clock=lambda: now
        )
        assert await seen.spend(TENANT, "task_a")
        await seen.sight(TENANT, "task_a")
        now = 9
        assert (await seen.sight(TENANT, "task_a")).count == 2
        now = 18
        assert (await seen.sight(TENANT, "task_a")).count == 3
        now = 99
        assert (await seen.sight(TENANT, "task_a")).count == 1
        assert not await seen.spend(TENANT, "task_b")
        now = 100
        assert await seen.spend(TENANT, "task_b")


@pytest.mark.redis
class TestRedisSightings(SightingsContract):
    """The real ones."""

    @pytest.fixture
    async def sightings(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisSightings]:
        """Nothing seen, nothing spent, in a namespace of their own."""
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisSightings(client, namespace=namespace, window_seconds=30, budget=BUDGET)
        await client.aclose()

    async def test_every_key_ends_by_itself_and_a_sighting_prolongs_only_its_own(
        self, sightings: RedisSightings, valkey: Valkey, namespace: str
    ) -> None:
        await sightings.sight(TENANT, "task_a")
        await sightings.measure(TENANT, "task_a", 300)
        await sightings.spend(TENANT, "task_a")
        client = valkey.client
        budget, sighting = sorted(bytes(key) for key in client.scan_iter(f"{namespace}:*"))
        client.expire(budget, 9)
        client.expire(sighting, 9)
        await sightings.sight(TENANT, "task_a")
        await sightings.spend(TENANT, "task_b")
        assert int(str(client.ttl(budget))) <= 9
        assert 9 < int(str(client.ttl(sighting))) <= 30

    async def test_a_prompt_that_never_comes_again_costs_little(
        self, sightings: RedisSightings, valkey: Valkey, namespace: str
    ) -> None:
        task_id = "task_" + "a" * 26
        assert await sightings.sight(TENANT, task_id) == Sighting(1, None)
        (key,) = valkey.client.scan_iter(f"{namespace}:*")
        assert int(str(valkey.client.memory_usage(key))) < 250

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        away = RedisSightings(client, namespace="x", window_seconds=30, budget=BUDGET)
        for call in (
            away.sight(TENANT, "x"),
            away.measure(TENANT, "x", 1),
            away.spend(TENANT, "x"),
            away.forget(TENANT, "x"),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await client.aclose()
