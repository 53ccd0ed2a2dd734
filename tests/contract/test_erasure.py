"""Erasure keeps one contract, with Redis and without: all of one tenant goes, nothing of others."""

from collections.abc import AsyncIterator

import pytest

from loragen.erasure import Erasure, RedisErasure
from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from loragen.store import Store
from tests.contract.store_contract import TENANT, task_of
from tests.fakes.gateway import redis_store
from tests.fakes.memory_erasure import MemoryErasure
from tests.fakes.memory_store import MemoryStore
from tests.fakes.valkey import Valkey

Both = tuple[Store, Erasure]


class ErasureContract:
    """The checks; a subclass gives the fixture `both`."""

    async def test_a_tenant_is_erased_and_others_stay(self, both: Both) -> None:
        store, erasure = both
        other = f"{TENANT}-2"
        for number in range(5):
            for tenant in (TENANT, other):
                await store.create(task_of(number).model_copy(update={"tenant": tenant}))
                await store.put_recipe(f"{tenant}:{number}", b"x")
        assert await erasure.erase(TENANT) >= 10
        assert (await store.page(TENANT, limit=9)).tasks == []
        assert await store.get_recipe(f"{TENANT}:0") is None
        assert len((await store.page(other, limit=9)).tasks) == 5
        assert await store.get_recipe(f"{other}:0") == b"x"
        assert await erasure.erase(TENANT) == 0


class TestMemoryErasure(ErasureContract):
    """The fake."""

    @pytest.fixture
    def both(self) -> Both:
        store = MemoryStore()
        return store, MemoryErasure(store)


@pytest.mark.redis
class TestRedisErasure(ErasureContract):
    """The real one."""

    @pytest.fixture
    async def both(self, valkey: Valkey, namespace: str) -> AsyncIterator[Both]:
        client = connect(valkey.url, timeout_seconds=5)
        store = redis_store(valkey.url, namespace)
        yield store, RedisErasure(client, namespace=namespace)
        await store.close()
        await client.aclose()

    @pytest.mark.parametrize(
        ("key", "goes"),
        [
            ("tasks:acme", True),
            ("task:acme:x:y", True),
            ("a-new-kind:acme", True),
            ("lease:compile:acme:x", True),
            ("tasks:acme2", False),
            ("tasks:other:acme", False),
            ("lease:acme:other:x", False),
            ("lease:compile:other:acme", False),
            ("key:acme", False),
            ("acme", False),
        ],
    )
    async def test_a_key_is_a_tenants_by_its_place_alone(
        self, both: Both, valkey: Valkey, namespace: str, key: str, goes: bool
    ) -> None:
        valkey.client.set(f"{namespace}:{key}", "x")
        valkey.client.set(f"{namespace}-2:{key}", "x")
        assert await both[1].erase("acme") == int(goes)
        assert bool(valkey.client.exists(f"{namespace}:{key}")) is not goes
        assert valkey.client.exists(f"{namespace}-2:{key}")

    async def test_thousands_of_keys_go(self, both: Both, valkey: Valkey, namespace: str) -> None:
        valkey.client.mset({f"{namespace}:recipe:acme:{number}": "x" for number in range(5_000)})
        valkey.client.mset({f"{namespace}:recipe:acme2:{number}": "x" for number in range(5_000)})
        assert await both[1].erase("acme") == 5_000

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        with pytest.raises(StoreUnavailable):
            await RedisErasure(client, namespace="x").erase("acme")
        await client.aclose()
