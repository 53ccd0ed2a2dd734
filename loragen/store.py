"""Store: where tasks (durable) and recipes (evictable) live; `redis_store` keeps them in Redis."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from loragen.resealing import Resealed
from loragen.task import Task, TaskRecord


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks of a tenant, in order, and whether others follow."""

    tasks: list[TaskRecord]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a task was in the moment it was deleted; None where its record could not be read."""

    record: TaskRecord | None


class Store(Protocol):
    """Where tasks and recipes live. Every method raises StoreUnavailable when it cannot answer."""

    async def create(
        self, task: Task, *, most: int | None = None, others: Sequence[str] = ()
    ) -> bool:
        """Write a new task; False, and nothing written, if it exists.

        So it does where its prompt has a task by one of `others`, its other ids, or by a link.
        An implicit task gives way to one that is not.

        Raises:
            LimitExceeded: its tenant has `most` tasks, implicit ones and those of others apart.
        """

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt and tools; an implicit one lives on from here."""

    async def find(self, tenant: str, ids: Sequence[str]) -> str | None:
        """Return the id of the task there is of a prompt with these ids, or a link from one."""

    async def link(self, tenant: str, task_id: str, other: str) -> bool:
        """Let a task be found by another id of its prompt, instead of the one linked before.

        False if there is no such task, or it is an implicit one: those expire.
        """

    async def update(self, task: Task) -> bool:
        """Replace record and refined recipes of an existing task; False if it was deleted."""

    async def delete(self, tenant: str, task_id: str) -> Deleted | None:
        """Delete a task, not its recipes, and return what it was; None if there was none."""

    async def page(
        self, tenant: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> Page:
        """Return the tenant's tasks behind task `after`, by time of creation, then by id.

        Following pages from end to end meets every task that was there all along exactly once,
        whatever is created and deleted meanwhile, be it the task `after` itself.

        Raises:
            TaskNotFound: there was no task `after` within the last hour.
        """

    async def records(self, tenant: str, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return those of the tasks that exist, by id."""

    async def get_recipe(self, key: str) -> bytes | None:
        """Return recipe bytes and keep them for another time to live."""

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        """Store recipe bytes unless some are there; return those that are."""

    async def delete_recipe(self, key: str) -> None:
        """Forget a recipe."""

    def tasks(self) -> AsyncIterator[tuple[str, str]]:
        """Yield tenant and id of every task that is there all along, some of them twice."""

    async def reseal(self, tenant: str, task_id: str) -> Resealed:
        """Seal what of a task is not sealed as it would be now."""

    async def reseal_recipe(self, key: str) -> bool:
        """Seal a recipe that is not sealed as it would be now; False if there is nothing to do."""

    async def ping(self) -> None:
        """Return if the store answers."""

    async def close(self) -> None:
        """Give back the connections."""
