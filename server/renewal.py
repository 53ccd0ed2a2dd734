"""Renewal: after a rotation, what is stored under older versions of a secret goes to the newest.

Each gateway does it once, behind its start, one after another: the last that is restarted finds
what those before it have still written. Once it is done, the older versions are needed no more.
"""

import asyncio
import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from loragen.errors import SealBroken, SealUnknown, StoreUnavailable, TaskDamaged
from loragen.leases import hold
from loragen.task import TaskRecord
from server.identity import Identity
from server.recipe_tier import RecipeTier
from server.shared import Shared

logger = logging.getLogger(__name__)

_LEASE: Final = "renewal"
_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class RenewalState:
    """How far it is: tasks looked at, values and ids renewed, values that no version opens."""

    status: Literal["not_needed", "running", "done"]
    tasks: int = 0
    renewed: int = 0
    unreadable: int = 0
    finished_at: int | None = None

    def shown(self) -> dict[str, Any]:
        """Return what an operator sees of it."""
        return asdict(self)


class Renewal:
    """Renews everything that is stored, once."""

    def __init__(
        self,
        shared: Shared,
        identity: Identity,
        recipes: RecipeTier,
        *,
        is_rotated: bool,
        is_sealed: bool,
    ) -> None:
        """Take whether the master secret has several versions, and whether values are sealed."""
        self._shared = shared
        self._identity = identity
        self._recipes = recipes
        self._is_rotated = is_rotated
        self.state = RenewalState("running" if is_rotated or is_sealed else "not_needed")

    async def run(self) -> None:
        """Renew everything, over lost connections and surprises too, and end."""
        pause = _RETRY_SECONDS
        while self.state.status == "running":
            self.state = RenewalState("running")
            try:
                async with hold(self._shared.leases, _LEASE):
                    await self._renew_all()
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:  # it may come every time, so the next try waits twice as long
                logger.warning("renewal failed", exc_info=True, extra={"retry_seconds": pause})
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_RETRY_SECONDS)

    async def _renew_all(self) -> None:
        surprise: Exception | None = None
        async for tenant, task_id in self._shared.store.tasks():
            try:
                await self._renew(tenant, task_id)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - raised once the other tasks are renewed
                logger.warning("task is not renewed", extra={"task_id": task_id})
                surprise = error
        if surprise is not None:
            raise surprise
        self.state = replace(self.state, status="done", finished_at=int(time.time()))
        level = logging.WARNING if self.state.unreadable else logging.INFO
        logger.log(level, "stored values are renewed", extra=self.state.shown())

    async def _renew(self, tenant: str, task_id: str) -> None:
        renewed = unreadable = 0
        try:
            resealed = await self._shared.store.reseal(tenant, task_id)
            renewed, unreadable = resealed.values, resealed.unreadable
            if not resealed.is_implicit:  # those expire, and looking at them would prolong them
                records = await self._shared.store.records(tenant, [task_id])
                for record in records.values():
                    renewed += await self._recipes_of(record)
                    renewed += await self._id(record)
        except (TaskDamaged, SealBroken, SealUnknown):
            unreadable = max(unreadable, 1)
        self.state = replace(
            self.state,
            tasks=self.state.tasks + 1,
            renewed=self.state.renewed + renewed,
            unreadable=self.state.unreadable + unreadable,
        )

    async def _recipes_of(self, record: TaskRecord) -> int:
        return sum([await self._recipes.renew(record, ref) for ref in record.recipes])

    async def _id(self, record: TaskRecord) -> int:
        """Let a prompt be found by its newest id when older versions are held no more."""
        if not self._is_rotated:
            return 0
        task = await self._shared.store.get(record.tenant, record.id)
        if task is None:
            return 0
        newest = self._identity.ids_of(task)[0]
        return (
            0 if newest == task.id else await self._shared.store.link(task.tenant, task.id, newest)
        )
