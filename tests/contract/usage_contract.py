"""What the meter and the API rely on. A subclass gives the fixture `parts`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from loragen.store import Store
from loragen.tenants import Tenants
from loragen.usage import DELETED, Numbers, Usage, UsageKey
from tests.contract.store_contract import task_of
from tests.contract.tenants_contract import ACME, GLOBEX

TODAY = date(2026, 3, 1)
KEEP_DAYS = 320
TASK = task_of(0, tenant="acme")
ONE = Numbers(requests=1, prompt_tokens=5, saved_prompt_tokens=40, generated_tokens=3)


@dataclass
class Parts:
    """Usage, and what it looks at."""

    usage: Usage
    tenants: Tenants
    store: Store


def key_of(
    day: date = TODAY, *, tenant: str = "acme", mode: str = "compiled", task: str | None = TASK.id
) -> UsageKey:
    return UsageKey(tenant, day, "demo", mode, task)


class UsageContract:
    """The checks."""

    async def read(
        self, parts: Parts, tenant: str = "acme", days: Sequence[date] = (TODAY, TODAY)
    ) -> dict[UsageKey, Numbers]:
        return await parts.usage.read(tenant, since=days[0], until=days[1])

    async def test_numbers_add_up_by_day_mode_and_task(self, parts: Parts) -> None:
        await parts.tenants.create(ACME)
        await parts.store.create(TASK)
        keys = (key_of(), key_of(mode="hybrid"), key_of(task=None, mode="base"))
        await parts.usage.add("a", dict.fromkeys(keys, ONE))
        await parts.usage.add("b", {key_of(): ONE})
        assert await self.read(parts) == {
            **dict.fromkeys(keys, ONE),
            key_of(): Numbers(2, 10, 80, 6),
        }

    async def test_a_batch_is_added_once(self, parts: Parts) -> None:
        await parts.tenants.create(ACME)
        await asyncio.gather(*(parts.usage.add("a", {key_of(task=None): ONE}) for _ in range(20)))
        assert await self.read(parts) == {key_of(task=None): ONE}

    async def test_of_concurrent_batches_none_is_lost(self, parts: Parts) -> None:
        await parts.tenants.create(ACME)
        await asyncio.gather(
            *(parts.usage.add(str(n), {key_of(task=None): ONE}) for n in range(50))
        )
        assert (await self.read(parts))[key_of(task=None)].requests == 50

    async def test_days_are_read_from_one_to_another_and_tenants_apart(self, parts: Parts) -> None:
        await parts.tenants.create(ACME)
        await parts.tenants.create(GLOBEX)
        days = [TODAY + timedelta(days=number) for number in range(4)]
        keys = [key_of(day, task=None) for day in days]
        await parts.usage.add("a", dict.fromkeys(keys, ONE))
        await parts.usage.add("b", {key_of(tenant="globex", task=None): ONE})
        assert list(await self.read(parts, days=(days[1], days[2]))) == keys[1:3]
        assert list(await self.read(parts, "globex", days=(days[0], days[3]))) == [
            key_of(tenant="globex", task=None)
        ]

    async def test_the_open_tenant_needs_no_record_and_others_do(self, parts: Parts) -> None:
        open_key = key_of(tenant="default", task=None)
        await parts.usage.add("a", {open_key: ONE, key_of(task=None): ONE})
        assert await self.read(parts, "default") == {open_key: ONE}
        assert await self.read(parts) == {}

    async def test_a_task_that_does_not_exist_is_counted_without_its_id(self, parts: Parts) -> None:
        await parts.tenants.create(ACME)
        await parts.usage.add("a", {key_of(): ONE, key_of(task=DELETED): ONE})
        assert await self.read(parts) == {key_of(task=DELETED): ONE + ONE}

    async def test_a_task_that_is_forgotten_leaves_its_numbers(self, parts: Parts) -> None:
        await parts.tenants.create(ACME)
        other = task_of(1, tenant="acme")
        for task in (TASK, other):
            await parts.store.create(task)
        long_ago = TODAY - timedelta(days=300)
        keys = (key_of(), key_of(mode="prompt"), key_of(long_ago), key_of(task=other.id))
        await parts.usage.add("a", dict.fromkeys(keys, ONE))
        await parts.store.delete("acme", TASK.id)
        for _ in range(2):
            await parts.usage.forget_task("acme", TASK.id, model="demo", today=TODAY)
        await parts.usage.add("b", {key_of(): ONE})
        assert await self.read(parts, days=(long_ago, TODAY)) == {
            key_of(task=DELETED): ONE + ONE,
            key_of(task=DELETED, mode="prompt"): ONE,
            key_of(long_ago, task=DELETED): ONE,
            key_of(task=other.id): ONE,
        }

    async def test_days_that_are_kept_no_longer_are_dropped_of_every_tenant(
        self, parts: Parts
    ) -> None:
        await parts.tenants.create(ACME)
        days = [TODAY - timedelta(days=KEEP_DAYS + more) for more in (0, 1, 30)]
        keys = [key_of(day, tenant=who, task=None) for day in days for who in ("acme", "default")]
        await parts.usage.add("a", dict.fromkeys(keys, ONE))
        await parts.usage.drop_old(TODAY)
        for tenant in ("acme", "default"):
            found = await self.read(parts, tenant, days=(days[2], TODAY))
            assert found == {key_of(days[0], tenant=tenant, task=None): ONE}
