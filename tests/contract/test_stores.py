"""Both stores keep one contract; what only a real server can show stands below."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from loragen.errors import ConfigError, StoreUnavailable
from loragen.redis_store import RedisStore
from loragen.store import Deleted, Store
from tests.contract.recipe_contract import RecipeContract
from tests.contract.store_contract import TENANT, StoreContract, task_of
from tests.fakes.gateway import redis_store
from tests.fakes.memory_store import MemoryStore
from tests.fakes.resolving import metric
from tests.fakes.valkey import Valkey

Call = Callable[[Store], Awaitable[object]]

CALLS: dict[str, Call] = {
    "create": lambda store: store.create(task_of(0)),
    "get": lambda store: store.get(TENANT, "x"),
    "update": lambda store: store.update(task_of(0)),
    "delete": lambda store: store.delete(TENANT, "x"),
    "page": lambda store: store.page(TENANT, limit=1),
    "records": lambda store: store.records(TENANT, ["x"]),
    "get_recipe": lambda store: store.get_recipe("x"),
    "put_recipe": lambda store: store.put_recipe("x", b"x"),
    "delete_recipe": lambda store: store.delete_recipe("x"),
    "ping": lambda store: store.ping(),
}


class TestMemoryStore(StoreContract, RecipeContract):
    """The fake."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        """An empty store."""
        return MemoryStore()

    @pytest.fixture
    def damage(self, store: MemoryStore) -> Callable[[str], None]:
        """Damage a task's record."""
        return partial(store.damage_record, TENANT)

    async def test_recipes_expire_without_use(self) -> None:
        now = 0.0
        store = MemoryStore(recipe_ttl_seconds=10, clock=lambda: now)
        await store.put_recipe("k", b"x")
        now = 9
        assert await store.get_recipe("k") == b"x"
        now = 18
        assert await store.get_recipe("k") == b"x"
        now = 28
        assert await store.get_recipe("k") is None
        assert await store.put_recipe("k", b"y") == b"y"

    async def test_implicit_tasks_expire_without_use(self) -> None:
        now = 0.0
        store = MemoryStore(implicit_ttl_seconds=10, clock=lambda: now)
        await store.create(task_of(0, is_implicit=True))
        await store.create(task_of(1))
        for moment in (9.0, 18.0):
            now = moment
            assert await store.get(TENANT, task_of(0).id) is not None
        now = 28.0
        assert await store.get(TENANT, task_of(0).id) is None
        assert await store.get(TENANT, task_of(1).id) is not None

    @pytest.mark.parametrize("call", CALLS)
    async def test_away_means_unavailable(self, call: str) -> None:
        store = MemoryStore()
        store.is_away = True
        with pytest.raises(StoreUnavailable):
            await CALLS[call](store)


@pytest.mark.redis
class TestRedisStore(StoreContract, RecipeContract):
    """The real one."""

    @pytest.fixture
    async def store(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisStore]:
        """A store in a namespace of its own."""
        opened = redis_store(valkey.url, namespace)
        yield opened
        await opened.close()

    @pytest.fixture
    def damage(self, valkey: Valkey, namespace: str) -> Callable[[str], None]:
        """Damage a task's record."""
        return lambda task_id: valkey.damage_record(f"{namespace}:task:{TENANT}:{task_id}")

    async def test_use_prolongs_a_recipe(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        await store.put_recipe("k", b"x")
        key = f"{namespace}:recipe:k"
        valkey.client.expire(key, 5)
        await store.get_recipe("k")
        assert int(str(valkey.client.ttl(key))) > 3_000

    async def test_tasks_never_expire_and_recipes_do(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        await store.create(task_of(0))
        await store.update(task_of(0, status="ready"))
        await store.put_recipe("k", b"x")
        client = valkey.client
        keys = {bytes(key) for key in client.scan_iter(f"{namespace}:*")}
        assert {key for key in keys if client.ttl(key) != -1} == {f"{namespace}:recipe:k".encode()}
        assert len(keys) == 3

    async def test_use_prolongs_an_implicit_task_and_registration_keeps_it(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        task = task_of(0, is_implicit=True)
        await store.create(task)
        key = f"{namespace}:task:{TENANT}:{task.id}"
        valkey.client.expire(key, 5)
        await store.update(task)
        assert 0 < int(str(valkey.client.ttl(key))) <= 5
        await store.get(TENANT, task.id)
        assert int(str(valkey.client.ttl(key))) > 3_000
        await store.create(task_of(0))
        await store.get(TENANT, task.id)
        assert valkey.client.ttl(key) == -1

    async def test_a_record_never_holds_the_prompt(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        await store.create(task_of(0))
        key = f"{namespace}:task:{TENANT}:{task_of(0).id}"
        stored: Any = valkey.client.hget(key, "record")
        record = zlib.decompress(stored)
        assert task_of(0).id.encode() in record
        assert b"Prompt 0" not in record

    async def test_a_record_of_a_later_version_or_an_earlier_one_is_read(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        await store.create(task_of(0))
        key = f"{namespace}:task:{TENANT}:{task_of(0).id}"
        record = task_of(0).model_dump_json()
        valkey.client.hset(key, "record", record[:-1] + ',"later":1}')
        assert await store.get(TENANT, task_of(0).id) == task_of(0)

    async def test_of_a_deleted_task_a_nameless_marker_stays_for_an_hour(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        await store.create(task_of(0))
        await store.delete(TENANT, task_of(0).id)
        (key,) = valkey.client.scan_iter(f"{namespace}:*")
        assert task_of(0).id not in str(key)
        assert valkey.client.get(key) == b"1000"
        assert 3_500 < int(str(valkey.client.ttl(key))) <= 3_600

    @pytest.mark.parametrize("record", [b'{"id":', zlib.compress(b'{"id":'), b"\x78\x9c nothing"])
    async def test_a_damaged_record_is_reported_and_can_be_deleted(
        self, store: RedisStore, valkey: Valkey, namespace: str, record: bytes
    ) -> None:
        await store.create(task_of(0))
        valkey.damage_record(f"{namespace}:task:{TENANT}:{task_of(0).id}", record)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await store.get(TENANT, task_of(0).id)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await store.records(TENANT, [task_of(0).id])
        assert await store.delete(TENANT, task_of(0).id) == Deleted(None)

    @pytest.mark.parametrize("lost", ["record", "prompt"])
    async def test_a_task_that_lost_a_part_is_reported_and_can_be_deleted(
        self, store: RedisStore, valkey: Valkey, namespace: str, lost: str
    ) -> None:
        await store.create(task_of(0))
        valkey.client.hdel(f"{namespace}:task:{TENANT}:{task_of(0).id}", lost)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await store.get(TENANT, task_of(0).id)
        assert await store.delete(TENANT, task_of(0).id) is not None
        assert await store.create(task_of(0))

    async def test_another_task_than_was_asked_for_is_not_taken_for_it(
        self, store: RedisStore, valkey: Valkey, namespace: str
    ) -> None:
        for number in (0, 1):
            await store.create(task_of(number))
        asked, other = (f"{namespace}:task:{TENANT}:{task_of(number).id}" for number in (0, 1))
        valkey.client.copy(other, asked, replace=True)
        before = metric("misdirected_replies_total", source="store")
        with pytest.raises(StoreUnavailable, match="another task"):
            await store.get(TENANT, task_of(0).id)
        with pytest.raises(StoreUnavailable, match="another task"):
            await store.records(TENANT, [task_of(0).id])
        valkey.client.copy(other, f"{namespace}:task:tenant-2:{task_of(1).id}")
        with pytest.raises(StoreUnavailable, match="another task"):
            await store.get("tenant-2", task_of(1).id)
        assert metric("misdirected_replies_total", source="store") == before + 3

    async def test_more_calls_than_connections_wait_their_turn(self, store: RedisStore) -> None:
        await asyncio.gather(*(store.put_recipe(f"k{n}", b"x") for n in range(200)))
        found = await asyncio.gather(*(store.get_recipe(f"k{n}") for n in range(200)))
        assert found == [b"x"] * 200


@pytest.mark.redis
async def test_under_memory_pressure_recipes_go_and_tasks_stay(
    tmp_path: Path, namespace: str
) -> None:
    server = Valkey(tmp_path)
    store = redis_store(server.url, namespace)
    try:
        for number in range(10):
            await store.create(task_of(number))
        used = int(server.client.info("memory")["used_memory"])
        server.client.config_set("maxmemory", used + (1 << 20))
        for number in range(60):
            await store.put_recipe(f"k{number}", b"x" * (64 << 10))
        kept = [await store.get_recipe(f"k{number}") for number in range(60)]
        assert 0 < kept.count(None) < 60
        assert len((await store.page(TENANT, limit=20)).tasks) == 10
    finally:
        await store.close()
        server.kill()


@pytest.mark.redis
async def test_a_server_that_is_gone_is_unavailable_at_once_and_comes_back(
    tmp_path: Path, namespace: str
) -> None:
    server = Valkey(tmp_path)
    store = redis_store(server.url, namespace)
    try:
        await store.ping()
        server.kill()
        for call in CALLS.values():
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await call(store)
            assert time.monotonic() - started < 1
        server.start()
        assert await store.create(task_of(0))
    finally:
        await store.close()
        server.kill()


def test_an_address_that_is_not_of_redis_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        redis_store("http://127.0.0.1", "x")
