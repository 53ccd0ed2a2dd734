"""The store without Redis: same contract, in this process's memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from loragen.errors import StoreUnavailable, TaskDamaged, TaskNotFound
from loragen.limits import excess
from loragen.resealing import Resealed
from loragen.store import Deleted, Page
from loragen.task import Task, TaskRecord


class MemoryStore:
    """Keeps tasks and recipes in dictionaries; `is_away` makes it fail like a lost Redis."""

    def __init__(
        self,
        *,
        recipe_ttl_seconds: float = 3600.0,
        implicit_ttl_seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks: dict[tuple[str, str], Task] = {}
        self._implicit_until: dict[tuple[str, str], float] = {}
        self._gone: dict[tuple[str, str], int] = {}
        self._damaged: set[tuple[str, str]] = set()
        self._recipes: dict[str, tuple[bytes, float]] = {}
        self._links: dict[tuple[str, str], str] = {}
        self._ttl = recipe_ttl_seconds
        self._implicit_ttl = implicit_ttl_seconds
        self._clock = clock
        self.is_away = False

    async def create(
        self, task: Task, *, most: int | None = None, others: Sequence[str] = ()
    ) -> bool:
        """Write a new task; False, and nothing written, if it exists."""
        await self._reach()
        key = (task.tenant, task.id)
        if key in self._tasks and (task.is_implicit or key not in self._implicit_until):
            return False
        known = [(task.tenant, other) in self._tasks for other in others]
        if key not in self._tasks and (any(known) or key in self._links):
            return False
        own = [each for each in self._tasks.values() if each.tenant == task.tenant]
        listed = sum(not each.is_implicit for each in own)
        if most is not None and not task.is_implicit and listed >= most:
            raise excess("tasks", most)
        self._tasks[key] = task
        self._implicit_until.pop(key, None)
        if task.is_implicit:
            self._implicit_until[key] = self._clock() + self._implicit_ttl
        return True

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt; an implicit one lives on from here."""
        await self._reach()
        if (tenant, task_id) in self._implicit_until:
            self._implicit_until[tenant, task_id] = self._clock() + self._implicit_ttl
        return self._read((tenant, task_id))

    async def find(self, tenant: str, ids: Sequence[str]) -> str | None:
        """Return the id of the task there is of a prompt with these ids, or a link from one."""
        await self._reach()
        own = [task_id for task_id in ids if (tenant, task_id) in self._tasks]
        linked = [self._links.get((tenant, task_id)) for task_id in ids]
        return next((each for each in [*own, *linked] if each is not None), None)

    async def link(self, tenant: str, task_id: str, other: str) -> bool:
        """Let a task be found by another id of its prompt; see `Store.link`."""
        await self._reach()
        key = (tenant, task_id)
        if key not in self._tasks or key in self._implicit_until:
            return False
        self._unlink(key)
        self._links[tenant, other] = task_id
        return True

    async def update(self, task: Task) -> bool:
        """Replace the record of an existing task; False if it was deleted."""
        await self._reach()
        kept = self._tasks.get((task.tenant, task.id))
        if kept is None:
            return False
        self._tasks[task.tenant, task.id] = task.model_copy(
            update={"prompt": kept.prompt, "tools": kept.tools, "probes": kept.probes}
        )
        self._damaged.discard((task.tenant, task.id))
        return True

    async def delete(self, tenant: str, task_id: str) -> Deleted | None:
        """Delete a task, not its recipes, and return what it was; None if there was none."""
        await self._reach()
        key = (tenant, task_id)
        task = self._tasks.pop(key, None)
        if task is None:
            return None
        self._gone[key] = task.created_at
        self._unlink(key)
        is_damaged = key in self._damaged
        self._damaged.discard(key)
        return Deleted(None if is_damaged else _record(task))

    async def page(
        self, tenant: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> Page:
        """Return the tenant's tasks behind task `after`; see `Store.page`."""
        await self._reach()
        own = [
            task for task in self._tasks.values() if task.tenant == tenant and not task.is_implicit
        ]
        own.sort(key=lambda task: (task.created_at, task.id), reverse=newest_first)
        if after is not None:
            task = self._tasks.get((tenant, after))
            at = self._gone.get((tenant, after)) if task is None else task.created_at
            if at is None:
                raise TaskNotFound("no task of that id to go on after", param="after")
            here = (at, after)
            own = [
                task
                for task in own
                if (task.created_at, task.id) != here
                and ((task.created_at, task.id) < here) == newest_first
            ]
        return Page([_record(task) for task in own[:limit]], has_more=len(own) > limit)

    async def records(self, tenant: str, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return those of the tasks that exist, by id."""
        await self._reach()
        found = ((task_id, self._read((tenant, task_id))) for task_id in task_ids)
        return {task_id: _record(task) for task_id, task in found if task is not None}

    async def get_recipe(self, key: str) -> bytes | None:
        """Return recipe bytes and keep them for another time to live."""
        await self._reach()
        data, until = self._recipes.get(key, (None, 0.0))
        if data is None or self._clock() >= until:
            return None
        self._recipes[key] = (data, self._clock() + self._ttl)
        return data

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        """Store recipe bytes unless some are there; return those that are."""
        await self._reach()
        kept, until = self._recipes.get(key, (data, 0.0))
        if self._clock() < until:
            return kept
        self._recipes[key] = (data, self._clock() + self._ttl)
        return data

    async def delete_recipe(self, key: str) -> None:
        """Forget a recipe."""
        await self._reach()
        self._recipes.pop(key, None)

    async def tasks(self) -> AsyncIterator[tuple[str, str]]:
        """Yield tenant and id of every task."""
        await self._reach()
        for key in list(self._tasks):
            yield key

    async def reseal(self, tenant: str, task_id: str) -> Resealed:
        """Find nothing that is sealed."""
        await self._reach()
        return Resealed(is_implicit=(tenant, task_id) in self._implicit_until)

    async def reseal_recipe(self, key: str) -> bool:
        """Find nothing that is sealed."""
        await self._reach()
        return False

    async def ping(self) -> None:
        """Return if the store answers."""
        await self._reach()

    async def close(self) -> None:
        """Give back the connections."""

    def erase(self, tenant: str) -> int:
        """Delete a tenant's tasks and recipes; return how many."""
        before = len(self._tasks) + len(self._recipes)
        self._tasks = {key: task for key, task in self._tasks.items() if key[0] != tenant}
        self._recipes = {
            key: kept for key, kept in self._recipes.items() if not key.startswith(f"{tenant}:")
        }
        return before - len(self._tasks) - len(self._recipes)

    def has(self, tenant: str, task_id: str) -> bool:
        """Whether there is such a task."""
        return (tenant, task_id) in self._tasks

    def recipe_keys(self) -> list[str]:
        """Return the keys of all recipes."""
        return list(self._recipes)

    def damage(self, key: str, data: bytes) -> None:
        """Put other bytes where a recipe is."""
        self._recipes[key] = (data, self._clock() + self._ttl)

    def damage_record(self, tenant: str, task_id: str) -> None:
        """Let a task not be read."""
        self._damaged.add((tenant, task_id))

    def _read(self, key: tuple[str, str]) -> Task | None:
        if key in self._damaged:
            raise TaskDamaged("a stored task cannot be read")
        return self._tasks.get(key)

    def _unlink(self, key: tuple[str, str]) -> None:
        kept = {link: task for link, task in self._links.items() if (link[0], task) != key}
        self._links = kept

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do while Redis answers
        for key, until in list(self._implicit_until.items()):
            if self._clock() >= until:
                del self._implicit_until[key], self._tasks[key]
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)


def _record(task: Task) -> TaskRecord:
    return TaskRecord.model_validate(task.model_dump())
