"""Names in Redis and the fake keep one contract."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from config.ports import free_port
from loragen.errors import StoreUnavailable
from loragen.names import Alias, Names, Version
from loragen.redis_client import connect
from loragen.redis_names import RedisNames
from loragen.redis_store import RedisStore
from tests.contract.names_contract import KEEP, A, Kept, NamesContract
from tests.contract.store_contract import TENANT
from tests.fakes.memory_names import MemoryNames
from tests.fakes.memory_store import MemoryStore
from tests.fakes.valkey import Valkey

Call = Callable[[Names], Awaitable[object]]

CALLS: dict[str, Call] = {
    "find": lambda names: names.find(TENANT, "ada"),
    "all": lambda names: names.all(TENANT),
    "history": lambda names: names.history(TENANT, "ada"),
    "aliases": lambda names: names.aliases(TENANT, [A]),
    "begin_edit": lambda names: names.begin_edit(TENANT),
    "point": lambda names: names.point(TENANT, "ada", A, edit=1, now=9),
    "claim": lambda names: names.claim(TENANT, "ada", A, now=9),
    "roll_back": lambda names: names.roll_back(TENANT, "ada", 1, now=9),
    "restore": lambda names: names.restore(TENANT, Alias("ada", Version(1, A, 9), True)),
    "delete": lambda names: names.delete(TENANT, "ada"),
    "forget_task": lambda names: names.forget_task(TENANT, A),
}


class TestMemoryNames(NamesContract):
    """The fake."""

    @pytest.fixture
    def kept(self) -> Kept:
        """No names yet."""
        store = MemoryStore()
        return Kept(MemoryNames(store, keep=KEEP), store)

    @pytest.mark.parametrize("call", CALLS)
    async def test_away_means_unavailable(self, kept: Kept, call: str) -> None:
        assert isinstance(kept.store, MemoryStore)
        kept.store.is_away = True
        with pytest.raises(StoreUnavailable):
            await CALLS[call](kept.names)


@pytest.mark.redis
class TestRedisNames(NamesContract):
    """The real ones."""

    @pytest.fixture
    async def kept(self, valkey: Valkey, namespace: str) -> AsyncIterator[Kept]:
        """No names yet, in a namespace of its own."""
        client = connect(valkey.url, timeout_seconds=5.0)
        store = RedisStore(client, namespace=namespace, recipe_ttl_seconds=60)
        yield Kept(RedisNames(client, namespace=namespace, keep=KEEP), store)
        await client.aclose()

    async def test_a_name_without_versions_leaves_no_key_but_the_counter(
        self, kept: Kept, valkey: Valkey, namespace: str
    ) -> None:
        before = set(valkey.client.scan_iter(f"{namespace}:*"))
        await kept.put(A)
        await kept.names.delete(TENANT, "ada")
        counter = f"{namespace}:edits:{TENANT}".encode()
        assert set(valkey.client.scan_iter(f"{namespace}:*")) - before == {counter}

    async def test_a_damaged_name_is_reported(
        self, kept: Kept, valkey: Valkey, namespace: str
    ) -> None:
        await kept.put(A)
        valkey.client.hset(f"{namespace}:versions:{TENANT}", "ada", '{"versions": 5}')
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await kept.names.history(TENANT, "ada")


@pytest.mark.redis
@pytest.mark.parametrize("call", CALLS)
async def test_a_server_that_is_gone_is_unavailable(call: str) -> None:
    client = connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1.0)
    with pytest.raises(StoreUnavailable):
        await CALLS[call](RedisNames(client, namespace="x", keep=KEEP))
    await client.aclose()
