"""Usage without Redis: same contract, in this process's memory."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

from loragen.errors import StoreUnavailable
from loragen.tenants import OPEN_TENANT
from loragen.usage import DELETED, Numbers, UsageKey
from tests.fakes.memory_store import MemoryStore
from tests.fakes.memory_tenants import MemoryTenants


class MemoryUsage:
    """Keeps numbers in a dictionary; `is_away` makes it fail like a lost Redis."""

    def __init__(self, store: MemoryStore, tenants: MemoryTenants, *, keep_days: int = 400) -> None:
        self._keep_days = keep_days
        self._store = store
        self._tenants = tenants
        self._numbers: dict[UsageKey, Numbers] = {}
        self._batches: set[str] = set()
        self.is_away = False
        self.loses_answers = False
        """Do what is asked and fail all the same."""

    async def add(self, batch_id: str, numbers: Mapping[UsageKey, Numbers]) -> None:
        """Add numbers, unless a batch of that id was added; a deleted tenant's are dropped."""
        await self._reach()
        if batch_id not in self._batches:
            self._batches.add(batch_id)
            for key, added in numbers.items():
                if key.tenant == OPEN_TENANT or await self._tenants.get(key.tenant) is not None:
                    self._put(key, added)
        if self.loses_answers:
            raise StoreUnavailable("the answer was lost")

    async def read(self, tenant: str, *, since: date, until: date) -> dict[UsageKey, Numbers]:
        """Return what a tenant was served from one day to another, both included."""
        await self._reach()
        return {
            key: numbers
            for key, numbers in self._numbers.items()
            if key.tenant == tenant and since <= key.day <= until
        }

    async def forget_task(self, tenant: str, task_id: str, *, model: str, today: date) -> None:
        """Keep a task's numbers under `DELETED`."""
        await self._reach()
        for key in [k for k in self._numbers if (k.tenant, k.task_id) == (tenant, task_id)]:
            self._put(key, self._numbers.pop(key))

    async def drop_old(self, today: date) -> None:
        """Drop the days that are kept no longer, of all tenants."""
        await self._reach()
        first = today - timedelta(days=self._keep_days)
        self._numbers = {key: each for key, each in self._numbers.items() if key.day >= first}

    def _put(self, key: UsageKey, added: Numbers) -> None:
        if key.task_id is not None and not self._store.has(key.tenant, key.task_id):
            key = replace(key, task_id=DELETED)
        self._numbers[key] = self._numbers.get(key, Numbers()) + added

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
