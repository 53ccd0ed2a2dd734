"""Renewal: what always goes wrong with one task keeps no other back, and is tried less and less."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from loragen.errors import StoreUnavailable, TaskDamaged
from loragen.keys import TenantKeys
from loragen.resealing import Resealed
from loragen.task import TaskRecord
from server.identity import Identity
from server.recipe_tier import RecipeTier
from server.renewal import Renewal
from tests.contract.store_contract import task_of
from tests.fakes.memory_store import MemoryStore
from tests.fakes.shared_state import shared_state

ODD = task_of(0).id


class OddStore(MemoryStore):
    """Fails with one task, every time; each way to do so is tried on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.odd_reseal: Exception | None = None
        self.odd_records: Exception | None = None
        self.resealed: list[str] = []

    async def reseal(self, tenant: str, task_id: str) -> Resealed:
        self.resealed.append(task_id)
        if self.odd_reseal is not None and task_id == ODD:
            raise self.odd_reseal
        return await super().reseal(tenant, task_id)

    async def records(self, tenant: str, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        if self.odd_records is not None and ODD in task_ids:
            raise self.odd_records
        return await super().records(tenant, task_ids)


@pytest.fixture
async def store() -> OddStore:
    """A store of three tasks."""
    opened = OddStore()
    for number in range(3):
        await opened.create(task_of(number))
    return opened


def renewal_of(store: OddStore) -> Renewal:
    keys = partial(TenantKeys, (bytes(32),))
    shared = shared_state(store)
    return Renewal(
        shared,
        Identity(store, keys),
        RecipeTier(store, keys),
        is_rotated=False,
        is_sealed=True,
    )


async def pauses_of(
    renewing: Renewal, monkeypatch: pytest.MonkeyPatch, *, mended_at: int, mend: Callable[[], None]
) -> list[float]:
    """Run a renewal to its end, without waiting, mend at one of its pauses, and return them all."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def hurried(seconds: float) -> None:
        if seconds >= 5 and asyncio.current_task() is running:
            pauses.append(seconds)
            if len(pauses) == mended_at:
                mend()
            seconds = 0
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", hurried)
    running = asyncio.create_task(renewing.run())
    async with asyncio.timeout(10):
        await running
    return pauses


async def test_a_surprise_that_comes_every_time_is_met_ever_less_often_and_the_others_are_renewed(
    store: OddStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.odd_records = KeyError("what nobody expected")
    renewing = renewal_of(store)

    def mend() -> None:
        store.odd_records = None

    pauses = await pauses_of(renewing, monkeypatch, mended_at=12, mend=mend)
    assert pauses[:3] == [5, 10, 20]
    assert pauses[-2:] == [3_600, 3_600]
    assert (renewing.state.status, renewing.state.tasks) == ("done", 3)
    assert {store.resealed.count(task_of(number).id) for number in range(3)} == {13}
    messages = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert (messages.count("renewal failed"), messages.count("task is not renewed")) == (12, 12)


async def test_a_redis_that_writes_nothing_is_waited_for_and_makes_no_task_unreadable(
    store: OddStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.odd_reseal = StoreUnavailable("the task store does not answer")
    renewing = renewal_of(store)

    def mend() -> None:
        store.odd_reseal = None

    pauses = await pauses_of(renewing, monkeypatch, mended_at=3, mend=mend)
    assert pauses == [5, 5, 5]
    assert (renewing.state.status, renewing.state.unreadable) == ("done", 0)


async def test_a_task_whose_values_cannot_be_read_is_counted_and_holds_nobody_up(
    store: OddStore,
) -> None:
    store.odd_reseal = TaskDamaged("a stored task cannot be read")
    renewing = renewal_of(store)
    async with asyncio.timeout(10):
        await renewing.run()
    state = renewing.state
    assert (state.status, state.tasks, state.unreadable) == ("done", 3, 1)
    assert store.resealed == [task_of(number).id for number in range(3)]
