"""Upgrades: behind all answers, tasks are compiled for the pool that is coming.

Of all gateways one does it for an edge model, under a lease. What is missing it asks the tasks, so
when it dies the next one goes on where it was. It goes on after the switch too, until all tasks
have a recipe for the pool that serves by then.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from config.settings import UpgradeSettings
from loragen import metrics
from loragen.errors import LoragenError, StoreUnavailable, TaskDamaged, TaskNotFound
from loragen.leases import LEASE_SECONDS, keep
from loragen.task import FallbackReason
from loragen.upgrades import Progress
from server.compiler import Compiler
from server.measuring import Measuring
from server.pools import Pools
from server.shared import Shared
from server.standing import Standing
from server.upgrade_plan import Candidate, is_no_worse, survey

logger = logging.getLogger(__name__)

PAUSE_SECONDS: Final = 0.5
"""Between looks at whether there is something to do."""
_REST: Final = 5.0
"""A gateway rests so many times as long as it took to look at all tasks before it does it again."""
_LONG_REST: Final = 50.0
_LONG_REST_SECONDS: Final = 20.0
"""The same where a pass had nothing to do, or could do nothing; so long at least."""
_RETRY_SECONDS: Final = 1.0
_BUSY: Final[frozenset[FallbackReason]] = frozenset(
    {"generator_unavailable", "generator_overloaded", "compile_timeout"}
)
"""Reasons after which the next task is to wait."""


@dataclass
class _Pass:
    """One pass over the tasks of an edge model."""

    model: str
    pool_id: str
    other: str | None
    todo: Iterator[Candidate]
    progress: Progress
    done: int = 0
    told_at: float = 0.0

    def note(self, **more: int) -> None:
        """Add to the counts."""
        counts = {name: getattr(self.progress, name) + count for name, count in more.items()}
        self.progress = self.progress.model_copy(update=counts)


class Upgrades:
    """Compiles what an upgrade needs, slowly enough for everybody else."""

    def __init__(
        self,
        models: Collection[str],
        shared: Shared,
        pools: Pools,
        compiler: Compiler,
        measuring: Measuring,
        standing: Standing,
        settings: UpgradeSettings,
    ) -> None:
        """Take the edge models that have a generator."""
        self._models = models
        self._shared = shared
        self._pools = pools
        self._compiler = compiler
        self._measuring = measuring
        self._standing = standing
        self._settings = settings

    async def run_forever(self) -> None:
        """Do what is to be done for every model until cancelled."""
        async with asyncio.TaskGroup() as group:
            for model in self._models:
                group.create_task(self._run(model))

    async def _run(self, model: str) -> None:
        while True:
            try:
                if self._pools.state(model).upgrade is not None:
                    await self._try_lead(model)
            except LoragenError as error:
                logger.warning("upgrade held up", extra={"model": model, "code": error.code})
            except Exception as error:  # the boundary of a loop that must outlive any surprise
                logger.error("upgrade failed", exc_info=error, extra={"model": model})
                await asyncio.sleep(_RETRY_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _try_lead(self, model: str) -> None:
        lease, token = f"pool-upgrade/{model}", secrets.token_hex(16)
        if not await self._shared.leases.acquire(lease, token, seconds=LEASE_SECONDS):
            return  # another gateway does it
        async with keep(self._shared.leases, lease, token):
            while (pool_id := self._pools.state(model).upgrade) is not None:
                started = time.monotonic()
                work = await self._look(model, pool_id)
                looked = time.monotonic() - started
                await self._compile(work)
                idle = max(_LONG_REST_SECONDS, _LONG_REST * looked)
                await self._rest(work, seconds=_REST * looked if work.done else idle)

    async def _look(self, model: str, pool_id: str) -> _Pass:
        state = self._pools.state(model)
        other = state.previous if pool_id == state.serving else state.serving
        found = await survey(
            self._shared,
            self._standing,
            model,
            pool_id=pool_id,
            other=other,
            days=self._settings.popular_days,
        )
        ready = [each for each in found if each.is_ready]
        progress = Progress(
            pool_id=pool_id,
            tasks=len(found),
            ready_tasks=len(ready),
            requests=sum(each.requests for each in found),
            ready_requests=sum(each.requests for each in ready),
        )
        todo = [each for each in found if not (each.has_recipe and each.is_ready)]
        work = _Pass(model, pool_id, other, iter(todo), progress)
        await self._tell(work)
        return work

    async def _compile(self, work: _Pass) -> None:
        """Compile what is to do, so many at once and a second."""
        pause = self._settings.at_once / self._settings.compiles_per_second
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.at_once):
                group.create_task(self._compile_some(work, pause=pause))
        await self._tell(work)

    async def _compile_some(self, work: _Pass, *, pause: float) -> None:
        for candidate in work.todo:
            if self._pools.state(work.model).upgrade != work.pool_id:
                return
            try:
                reason = await self._compile_one(work, candidate)
            except TaskDamaged:  # whoever deletes it ends that; the others are not to wait for it
                work.note(failed_tasks=1)
                continue
            except StoreUnavailable:  # the next pass goes on where this one ends
                return
            if time.monotonic() - work.told_at > _RETRY_SECONDS:
                await self._tell(work)
            await asyncio.sleep(max(pause, _RETRY_SECONDS) if reason in _BUSY else pause)

    async def _compile_one(self, work: _Pass, candidate: Candidate) -> FallbackReason | None:
        task = await self._shared.store.get(candidate.tenant, candidate.task_id)
        if task is None:
            return None
        if task.on(work.pool_id).recipe is not None:  # it waits for its measure, if for anything
            self._measuring.start(task.on(work.pool_id))
            return None
        try:
            reason = await self._compiler.compile_for(task, work.pool_id)
        except TaskNotFound:
            return None
        metrics.RECOMPILES.labels("failed" if reason else "done").inc()
        if reason is not None:
            work.note(failed_tasks=1)
            return reason
        work.done += 1
        record = await self._shared.store.get(candidate.tenant, candidate.task_id)
        is_ready = record is not None and is_no_worse(
            self._standing, record, work.pool_id, work.other
        )
        if is_ready and not candidate.is_ready:
            work.note(ready_tasks=1, ready_requests=candidate.requests)
        return None

    async def _rest(self, work: _Pass, *, seconds: float) -> None:
        until = time.monotonic() + max(seconds, PAUSE_SECONDS)
        while time.monotonic() < until:
            if self._pools.state(work.model).upgrade != work.pool_id:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _tell(self, work: _Pass) -> None:
        """Say how far it is, in Redis and in the metrics.

        Raises:
            StoreUnavailable: Redis is away, so nothing can be compiled either.
        """
        work.told_at = time.monotonic()
        work.progress = work.progress.model_copy(update={"updated_at": int(time.time())})
        metrics.UPGRADE_READY_RATIO.labels(work.model).set(work.progress.ready_share)
        await self._shared.progress.write(work.model, work.progress)
