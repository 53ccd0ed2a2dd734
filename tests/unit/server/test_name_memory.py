"""Names are as Redis has them while it answers, and as it had them while it does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loragen.errors import StoreUnavailable
from server.name_memory import NameMemory
from tests.contract.store_contract import TENANT, task_of
from tests.fakes.memory_invalidations import MemoryInvalidations
from tests.fakes.memory_names import MemoryNames
from tests.fakes.memory_store import MemoryStore


class Setup:
    """Two names, and the memory of one gateway."""

    def __init__(self, entries: int = 10) -> None:
        self.now = 0.0
        self.store = MemoryStore()
        self.names = MemoryNames(self.store)
        self.invalidations = MemoryInvalidations()
        self.memory = NameMemory(
            self.names,
            self.invalidations,
            entries=entries,
            retry_seconds=2.0,
            clock=lambda: self.now,
        )

    async def point(self, name: str, number: int) -> str:
        task = task_of(number)
        await self.store.create(task)
        edit = await self.names.begin_edit(TENANT)
        await self.names.point(TENANT, name, task.id, edit=edit, now=1)
        return task.id


async def test_an_edit_is_seen_at_once() -> None:
    setup = Setup()
    for number in range(2):
        task_id = await setup.point("ada", number)
        assert await setup.memory.find(TENANT, "ada") == task_id
    await setup.names.delete(TENANT, "ada")
    assert await setup.memory.find(TENANT, "ada") is None


async def test_while_redis_is_away_known_names_stand_for_what_they_did() -> None:
    setup = Setup()
    first = await setup.point("ada", 0)
    await setup.memory.find(TENANT, "ada")
    setup.store.is_away = True
    for _ in range(2):
        assert await setup.memory.find(TENANT, "ada") == first
    with pytest.raises(StoreUnavailable):
        await setup.memory.find(TENANT, "bob")
    with pytest.raises(StoreUnavailable):
        await setup.memory.find("other", "ada")


async def test_redis_is_asked_again_after_a_while() -> None:
    setup = Setup()
    first = await setup.point("ada", 0)
    await setup.memory.find(TENANT, "ada")
    setup.store.is_away = True
    await setup.memory.find(TENANT, "ada")
    setup.store.is_away = False
    second = await setup.point("ada", 1)
    assert await setup.memory.find(TENANT, "ada") == first
    setup.now = 2.0
    assert await setup.memory.find(TENANT, "ada") == second


async def test_of_a_deleted_name_nothing_is_remembered() -> None:
    setup = Setup()
    await setup.point("ada", 0)
    await setup.memory.find(TENANT, "ada")
    await setup.names.delete(TENANT, "ada")
    await setup.memory.find(TENANT, "ada")
    setup.store.is_away = True
    with pytest.raises(StoreUnavailable):
        await setup.memory.find(TENANT, "ada")


async def test_the_least_recently_used_name_gives_way() -> None:
    setup = Setup(entries=2)
    for number, name in enumerate(("ada", "bob", "ada", "eve")):
        await setup.point(name, number)
        await setup.memory.find(TENANT, name)
    setup.store.is_away = True
    assert await setup.memory.find(TENANT, "ada") == task_of(2).id
    assert await setup.memory.find(TENANT, "eve") == task_of(3).id
    with pytest.raises(StoreUnavailable):
        await setup.memory.find(TENANT, "bob")


@asynccontextmanager
async def following(memory: NameMemory) -> AsyncIterator[None]:
    """Let a memory hear of edits for the length of a block."""
    task = asyncio.create_task(memory.follow())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_another_gateway_edited_is_not_served_as_it_was_while_redis_is_away() -> None:
    setup = Setup()
    for number, name in enumerate(("ada", "bob")):
        await setup.point(name, number)
    other = NameMemory(setup.names, setup.invalidations, entries=9, retry_seconds=2.0)
    async with following(setup.memory):
        bob = await setup.memory.find(TENANT, "bob")
        await setup.memory.find(TENANT, "ada")
        await setup.point("ada", 2)
        await other.changed(TENANT, "ada")
        setup.store.is_away = True
        with pytest.raises(StoreUnavailable):
            await setup.memory.find(TENANT, "ada")
        assert await setup.memory.find(TENANT, "bob") == bob


async def test_an_answer_from_before_an_edit_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup()
    first = await setup.point("ada", 0)

    async def edited_meanwhile(tenant: str, name: str) -> str:
        await setup.memory.changed(tenant, name)
        return first

    with monkeypatch.context() as patch:
        patch.setattr(setup.names, "find", edited_meanwhile)
        assert await setup.memory.find(TENANT, "ada") == first
    setup.store.is_away = True
    with pytest.raises(StoreUnavailable):
        await setup.memory.find(TENANT, "ada")


async def test_a_memory_that_may_have_missed_an_edit_forgets_all_names() -> None:
    setup = Setup()
    await setup.point("ada", 0)
    await setup.memory.find(TENANT, "ada")
    async with following(setup.memory):
        setup.store.is_away = True
        with pytest.raises(StoreUnavailable):
            await setup.memory.find(TENANT, "ada")
