"""Usage keeps one contract, with Redis and without."""

from collections.abc import AsyncIterator
from typing import get_args

import pytest

from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from loragen.redis_tenants import RedisTenants
from loragen.usage import MODES, RedisUsage
from server.answer import Mode
from tests.contract.tenants_contract import ACME
from tests.contract.usage_contract import (
    KEEP_DAYS,
    ONE,
    TASK,
    TODAY,
    Parts,
    UsageContract,
    key_of,
)
from tests.fakes.gateway import redis_store
from tests.fakes.memory_store import MemoryStore
from tests.fakes.memory_tenants import MemoryTenants
from tests.fakes.memory_usage import MemoryUsage
from tests.fakes.valkey import Valkey


def test_the_modes_are_those_that_requests_are_served_in() -> None:
    assert set(MODES) == set(get_args(Mode))


class TestMemoryUsage(UsageContract):
    """The fake."""

    @pytest.fixture
    def parts(self) -> Parts:
        store, tenants = MemoryStore(), MemoryTenants()
        return Parts(MemoryUsage(store, tenants, keep_days=KEEP_DAYS), tenants, store)


@pytest.mark.redis
class TestRedisUsage(UsageContract):
    """The real one."""

    @pytest.fixture
    async def parts(self, valkey: Valkey, namespace: str) -> AsyncIterator[Parts]:
        client = connect(valkey.url, timeout_seconds=5)
        store = redis_store(valkey.url, namespace)
        usage = RedisUsage(client, namespace=namespace, keep_days=KEEP_DAYS)
        yield Parts(usage, RedisTenants(client, namespace=namespace), store)
        await store.close()
        await client.aclose()

    async def test_of_a_forgotten_task_the_id_is_nowhere(
        self, parts: Parts, valkey: Valkey, namespace: str
    ) -> None:
        await parts.tenants.create(ACME)
        await parts.store.create(TASK)
        await parts.usage.add("a", {key_of(): ONE})
        assert [each for each in valkey.contents(namespace) if b"usage" in each]
        await parts.store.delete("acme", TASK.id)
        await parts.usage.forget_task("acme", TASK.id, model="demo", today=TODAY)
        await parts.usage.add("b", {key_of(): ONE})
        assert not [each for each in valkey.contents(namespace) if TASK.id.encode() in each]

    async def test_a_full_redis_drops_no_usage(
        self, parts: Parts, valkey: Valkey, namespace: str
    ) -> None:
        await parts.usage.add("a", {key_of(tenant="default", task=None): ONE})
        day, batch = sorted(bytes(name) for name in valkey.client.scan_iter(f"{namespace}:*"))[::-1]
        assert (b"usage:default:2026-03-01" in day, b"usage-batch:a" in batch) == (True, True)
        assert int(str(valkey.client.ttl(batch))) <= 3_600
        assert valkey.client.ttl(day) == -1
        valkey.client.expire(day, 1_000)  # as an older version left it
        await parts.usage.add("b", {key_of(tenant="default", task=None): ONE})
        assert valkey.client.ttl(day) == -1

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        away = RedisUsage(client, namespace="x", keep_days=1)
        for call in (
            away.add("a", {key_of(): ONE}),
            away.read("acme", since=TODAY, until=TODAY),
            away.forget_task("acme", "x", model="demo", today=TODAY),
            away.drop_old(TODAY),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await client.aclose()
