"""Sightings without Redis, in this process's memory."""

import asyncio
import time
from collections.abc import Callable

from loragen.errors import StoreUnavailable
from loragen.sightings import Budget, Sighting

Key = tuple[str, str]


class MemorySightings:
    """Keeps sightings in dictionaries; `is_away` makes it fail like a lost Redis."""

    def __init__(
        self,
        *,
        budget: Budget,
        window_seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seen: dict[Key, tuple[Sighting, float]] = {}
        self._spent: dict[str, tuple[set[str], float]] = {}
        self._window = window_seconds
        self._budget = budget
        self._clock = clock
        self.is_away = False

    async def sight(self, tenant: str, task_id: str) -> Sighting:
        """Count a request with the prompt of a task that does not exist."""
        await self._reach()
        last = self._last(tenant, task_id)
        now = Sighting(last.count + 1, last.prompt_tokens)
        self._seen[tenant, task_id] = (now, self._clock() + self._window)
        return now

    async def measure(self, tenant: str, task_id: str, prompt_tokens: int) -> None:
        """Remember the length of a prompt as long as its sightings."""
        await self._reach()
        last = self._last(tenant, task_id)
        if last.count:
            until = self._seen[tenant, task_id][1]
            self._seen[tenant, task_id] = (Sighting(last.count, prompt_tokens), until)

    async def spend(self, tenant: str, task_id: str) -> bool:
        """Take a compile from the budget, once per task and period; False if none is left."""
        await self._reach()
        spent, until = self._spent.get(tenant, (set[str](), 0.0))
        if self._clock() >= until:
            spent, until = set(), self._clock() + self._budget.seconds
        if task_id in spent:
            return True
        if len(spent) >= self._budget.tasks:
            return False
        self._spent[tenant] = (spent | {task_id}, until)
        return True

    async def forget(self, tenant: str, task_id: str) -> None:
        """Forget the sightings of a prompt."""
        await self._reach()
        self._seen.pop((tenant, task_id), None)

    def _last(self, tenant: str, task_id: str) -> Sighting:
        sighting, until = self._seen.get((tenant, task_id), (Sighting(0, None), 0.0))
        return sighting if self._clock() < until else Sighting(0, None)

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do while Redis answers
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
