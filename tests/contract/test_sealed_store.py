"""A store with an encryption key is a store like any other, and Redis holds nothing readable."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from loragen.errors import StoreUnavailable
from loragen.redis_store import RedisStore
from loragen.seal import Seal
from tests.contract.recipe_contract import RecipeContract
from tests.contract.store_contract import TENANT, StoreContract, task_of
from tests.fakes.resolving import metric
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

OLD, NEW, FOREIGN = (bytes([number]) * 32 for number in (1, 2, 3))
CANARY = "CANARY-5e41"
REFINED = ("refined", "spare_refined")
FIELDS = ("prompt", "tools", "probes", *REFINED)


def sealed_store(valkey: Valkey, namespace: str, *keys: bytes) -> RedisStore:
    """Return a store that holds these versions of the key."""
    return RedisStore.connect(
        valkey.url,
        namespace=namespace,
        recipe_ttl_seconds=3600,
        timeout_seconds=5,
        seal=Seal(keys),
    )


@pytest.fixture
async def store(valkey: Valkey, namespace: str) -> AsyncIterator[RedisStore]:
    opened = sealed_store(valkey, namespace, NEW, OLD)
    yield opened
    await opened.close()


@pytest.fixture
def damage(valkey: Valkey, namespace: str) -> Callable[[str], None]:
    """Damage a task's record."""
    return lambda task_id: valkey.damage_record(f"{namespace}:task:{TENANT}:{task_id}")


class TestSealedRedisStore(StoreContract, RecipeContract):
    """The same contract."""


def full(number: int = 0, *, tenant: str = TENANT, **fields: Any) -> Any:
    """Return a task with something secret in each field."""
    tools = [{"type": "function", "function": {"name": "f", "description": CANARY}}]
    return task_of(
        number,
        tenant=tenant,
        prompt=f"You are {CANARY} {number}.",
        tools=tools,
        probes=({"input": CANARY},),
        refined=CANARY.encode(),
        spare_refined=f"spare {CANARY}".encode(),
        **fields,
    )


async def test_nothing_secret_is_in_any_value(
    store: RedisStore, valkey: Valkey, namespace: str
) -> None:
    await store.create(full())
    await store.update(full())
    await store.put_recipe(f"{TENANT}:k", CANARY.encode())
    assert not [each for each in valkey.contents(namespace) if CANARY.encode() in each]
    assert await store.get(TENANT, full().id) == full()
    assert await store.get_recipe(f"{TENANT}:k") == CANARY.encode()
    plain = sealed_store(valkey, f"{namespace}-plain")
    await plain.create(full())
    await plain.close()
    found = [each for each in valkey.contents(f"{namespace}-plain") if CANARY.encode() in each]
    assert len(found) == len(FIELDS)  # so it would have been seen


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "what", ["another tenant's", "another task's", "another field's", "damaged", "cut"]
)
async def test_a_value_from_elsewhere_is_never_read_as_the_tasks(
    store: RedisStore, valkey: Valkey, namespace: str, field: str, what: str
) -> None:
    await store.create(full())
    await store.create(full(1))
    await store.create(full(tenant="other"))
    client: Any = valkey.client
    key = f"{namespace}:task:{TENANT}:{full().id}"
    own = client.hget(key, field)
    value = {
        "another tenant's": client.hget(f"{namespace}:task:other:{full().id}", field),
        "another task's": client.hget(f"{namespace}:task:{TENANT}:{full(1).id}", field),
        "another field's": client.hget(key, FIELDS[FIELDS.index(field) - 1]),
        "damaged": own[:-1] + bytes([own[-1] ^ 1]),
        "cut": own[:20],
    }[what]
    client.hset(key, field, value)
    if field in REFINED:  # a recipe can be made again
        assert await store.get(TENANT, full().id) == full().model_copy(update={field: b""})
    else:
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await store.get(TENANT, full().id)
    assert await store.get("other", full().id) == full(tenant="other")


async def test_a_task_of_an_unknown_version_says_which(
    store: RedisStore, valkey: Valkey, namespace: str
) -> None:
    foreign = sealed_store(valkey, namespace, FOREIGN)
    await foreign.create(full())
    await foreign.close()
    with pytest.raises(StoreUnavailable, match=r"version [0-9a-f]{8} of the encryption key"):
        await store.get(TENANT, full().id)


@pytest.mark.parametrize("keys", [(OLD,), (OLD, NEW), (NEW, OLD), ()])
async def test_old_values_and_plain_ones_are_read(
    store: RedisStore, valkey: Valkey, namespace: str, keys: tuple[bytes, ...]
) -> None:
    before = sealed_store(valkey, namespace, *keys)
    await before.create(full())
    await before.put_recipe(f"{TENANT}:k", b"recipe")
    await before.close()
    assert await store.get(TENANT, full().id) == full()
    assert await store.get_recipe(f"{TENANT}:k") == b"recipe"
    assert await store.put_recipe(f"{TENANT}:k", b"another") == b"recipe"


@pytest.mark.parametrize("keys", [(OLD,), ()])
async def test_resealed_values_need_the_newest_version_only(
    store: RedisStore, valkey: Valkey, namespace: str, keys: tuple[bytes, ...]
) -> None:
    before = sealed_store(valkey, namespace, *keys)
    await before.create(full())
    await before.create(full(1, is_implicit=True))
    await before.put_recipe(f"{TENANT}:k", b"recipe")
    await before.close()
    key = f"{namespace}:task:{TENANT}:{full(1).id}"
    valkey.client.expire(key, 50)
    assert (await store.reseal(TENANT, full().id)).values == len(FIELDS)
    implicit = await store.reseal(TENANT, full(1).id)
    assert (implicit.values, implicit.is_implicit) == (len(FIELDS), True)
    assert await store.reseal_recipe(f"{TENANT}:k")
    assert 0 < int(str(valkey.client.ttl(key))) <= 50
    assert int(str(valkey.client.ttl(f"{namespace}:recipe:{TENANT}:k"))) > 3_000
    after = sealed_store(valkey, namespace, NEW)
    assert await after.get(TENANT, full().id) == full()
    assert await after.get(TENANT, full(1).id) == full(1, is_implicit=True)
    assert await after.get_recipe(f"{TENANT}:k") == b"recipe"
    assert (await after.reseal(TENANT, full().id)).values == 0
    await after.close()


async def test_what_cannot_be_opened_is_counted_and_left(
    store: RedisStore, valkey: Valkey, namespace: str
) -> None:
    foreign = sealed_store(valkey, namespace, FOREIGN)
    await foreign.create(full())
    await foreign.put_recipe(f"{TENANT}:k", b"recipe")
    before = sorted(valkey.contents(namespace))
    resealed = await store.reseal(TENANT, full().id)
    assert (resealed.values, resealed.unreadable) == (0, len(FIELDS))
    assert not await store.reseal_recipe(f"{TENANT}:k")
    assert sorted(valkey.contents(namespace)) == before
    await foreign.close()


async def test_a_recipe_that_cannot_be_opened_makes_room(
    store: RedisStore, valkey: Valkey, namespace: str
) -> None:
    foreign = sealed_store(valkey, namespace, FOREIGN)
    for key in ("one", "two"):
        await foreign.put_recipe(f"{TENANT}:{key}", b"foreign")
    await foreign.close()
    assert await store.get_recipe(f"{TENANT}:one") is None
    assert await store.put_recipe(f"{TENANT}:two", b"own") == b"own"
    assert await store.get_recipe(f"{TENANT}:two") == b"own"


@pytest.fixture
def mix_up(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the next replies of Redis be these, as on a connection that mixes them up."""

    def mix(*replies: Any) -> None:
        client: Any = store._redis
        execute, left = client.execute_command, list(replies)

        async def mixed_up(*args: Any, **options: Any) -> Any:
            reply = await execute(*args, **options)
            return left.pop(0) if left else reply

        monkeypatch.setattr(client, "execute_command", mixed_up)

    return mix


@pytest.mark.parametrize("call", ["get", "put"])
async def test_a_recipe_of_another_key_is_counted_and_the_right_one_is_kept(
    store: RedisStore,
    valkey: Valkey,
    namespace: str,
    mix_up: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    for key in ("own", "other"):
        await store.put_recipe(f"{TENANT}:{key}", key.encode())
    before = metric("misdirected_replies_total", source="store")
    mix_up(valkey.client.get(f"{namespace}:recipe:{TENANT}:other"))
    own = f"{TENANT}:own"
    got = await (store.get_recipe(own) if call == "get" else store.put_recipe(own, b"late"))
    assert got == b"own"
    assert await store.get_recipe(own) == b"own"
    assert metric("misdirected_replies_total", source="store") == before + 1
    assert caplog.text.count("is to another request") == 1  # as the chaos run counts them


async def test_two_replies_of_which_neither_opens_delete_nothing(
    store: RedisStore, valkey: Valkey, namespace: str, mix_up: Callable[..., None]
) -> None:
    for key in ("own", "one", "two"):
        await store.put_recipe(f"{TENANT}:{key}", key.encode())
    mix_up(*(valkey.client.get(f"{namespace}:recipe:{TENANT}:{key}") for key in ("one", "two")))
    with pytest.raises(StoreUnavailable):
        await store.get_recipe(f"{TENANT}:own")
    assert await store.get_recipe(f"{TENANT}:own") == b"own"


async def test_a_reply_to_another_before_a_recipe_is_gone_is_no_recipe(
    store: RedisStore, valkey: Valkey, namespace: str, mix_up: Callable[..., None]
) -> None:
    await store.put_recipe(f"{TENANT}:other", b"other")
    before = metric("misdirected_replies_total", source="store")
    mix_up(valkey.client.get(f"{namespace}:recipe:{TENANT}:other"))
    assert await store.get_recipe(f"{TENANT}:own") is None
    assert metric("misdirected_replies_total", source="store") == before
