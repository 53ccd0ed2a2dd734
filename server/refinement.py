"""Refinement: a task is refined in the background and keeps serving; the better recipe stays.

Of all gateways one refines a task, under a lease; as long as that is held the task says so. When
the gateway dies its lease ends, and the task is as it was: it can be refined again.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from loragen import metrics
from loragen.background import JOB_ENDS_SECONDS, end
from loragen.errors import (
    Conflict,
    InvalidRequest,
    LoragenError,
    RecipeInvalid,
    RecipeMismatch,
    TaskNotFound,
)
from loragen.leases import LEASE_SECONDS, hold, keep
from loragen.measurement import RefineOutcome
from loragen.recipe import Recipe
from loragen.task import Task
from loragen.wire import ProbeText, RefineReply, RefineRequest
from server.compiler import recipe_lease
from server.generator import Generator
from server.memory import Resolved
from server.recipe_tier import RecipeTier
from server.refine_outcome import judged
from server.resolve import Resolver
from server.shared import Shared
from server.standing import Standing
from server.turns import Turns

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Refines of an edge model that one gateway waits for; beyond them tenants take turns."""
_WAITING: Final = 1_000
"""Each of them keeps a lease alive meanwhile."""


class Refinement:
    """Refines tasks, each once at a time."""

    def __init__(
        self,
        generators: Mapping[str, Generator],
        shared: Shared,
        recipes: RecipeTier,
        resolver: Resolver,
        standing: Standing,
    ) -> None:
        """Take the generators by edge model; a model that is not among them has no pool."""
        self._generators = generators
        self._shared = shared
        self._recipes = recipes
        self._resolver = resolver
        self._standing = standing
        self._turns = {model: Turns(_AT_ONCE, max_waiting=_WAITING) for model in generators}
        self._running: dict[asyncio.Task[None], str] = {}

    def covers(self, edge_model: str) -> bool:
        """Whether tasks of an edge model can be refined."""
        return edge_model in self._generators

    def is_busy(self, edge_model: str) -> bool:
        """Whether refines of an edge model wait for their turn: what can be left had better be."""
        return list(self._running.values()).count(edge_model) >= _AT_ONCE

    async def start(
        self,
        task: Task,
        probes: Sequence[ProbeText],
        *,
        pool_id: str | None = None,
        admit: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Begin to refine a task on these probes; without any, on self-generated ones.

        Its recipe for a given pool is refined, else the one that serves, which is compiled if there
        is none. `admit` counts the refine where nothing else is in its way, or raises.

        Raises:
            InvalidRequest: its edge model has no pool.
            GeneratorUnavailable: the generator does not answer.
            Conflict: it is being refined.
        """
        generator = self._generators.get(task.edge_model)
        if generator is None:
            raise InvalidRequest(
                f"model {task.edge_model!r} has neither generator nor pool: nothing to refine on"
            )
        await generator.ping()
        being_refined = Conflict(f"task {task.id!r} is being refined")
        if await self.running(task.tenant, [task.id]):
            raise being_refined
        if admit is not None:
            await admit()
        token = secrets.token_hex(16)
        if not await self._shared.leases.acquire(
            _lease(task.tenant, task.id), token, seconds=LEASE_SECONDS
        ):
            raise being_refined
        running = asyncio.create_task(self._refine(task, probes, generator, token, pool_id))
        self._running[running] = task.edge_model
        running.add_done_callback(self._running.pop)

    async def running(self, tenant: str, task_ids: Collection[str]) -> set[str]:
        """Return those of a tenant's tasks that some gateway is refining."""
        names = {_lease(tenant, task_id): task_id for task_id in task_ids}
        return {names[name] for name in await self._shared.leases.held(names)}

    async def close(self) -> None:
        """Give up what is being refined."""
        await end(list(self._running), again_seconds=JOB_ENDS_SECONDS)

    async def _refine(
        self,
        task: Task,
        probes: Sequence[ProbeText],
        generator: Generator,
        token: str,
        pool_id: str | None,
    ) -> None:
        started = time.monotonic()
        try:
            async with keep(self._shared.leases, _lease(task.tenant, task.id), token):
                resolved = await self._start_of(task, pool_id)
                outcome = await self._refined(resolved, probes, generator, started)
                _count(outcome, seconds=time.monotonic() - started)
        except LoragenError as error:  # deleted meanwhile, or Redis is away: nowhere to say it
            logger.warning("refine lost", extra={"task_id": task.id, "code": error.code})
            return
        logger.info(
            "task refined",
            extra={"task_id": task.id, "status": outcome.status, "reason": outcome.reason},
        )

    async def _start_of(self, task: Task, pool_id: str | None) -> Resolved:
        """Return the task with the recipe that a refine begins from."""
        if pool_id is not None:
            found = await self._resolver.on_pool(task.tenant, task.id, pool_id)
            if found.recipe is not None:
                return found
        resolved = await self._resolver.resolve(task.tenant, task.id)
        if resolved.recipe is None:  # one more try: it may be compiling, or have been unlucky
            resolved = await self._resolver.compile(resolved.task)
        return resolved

    async def _refined(
        self,
        resolved: Resolved,
        probes: Sequence[ProbeText],
        generator: Generator,
        started: float,
    ) -> RefineOutcome:
        task = resolved.task
        try:
            async with self._turns[task.edge_model].turn(task.tenant):
                try:
                    reply = await generator.refine(_request(resolved, probes))
                except RecipeMismatch:  # of a pool that is gone, which no request has met yet
                    if self._resolver.is_managed(task.edge_model):
                        raise
                    resolved = await self._resolver.recompile(resolved)
                    reply = await generator.refine(_request(resolved, probes))
            recipe = _checked(reply)
        except LoragenError as error:
            failed = RefineOutcome(
                status="failed", reason=error.code, probes=len(probes), at=int(time.time())
            )
            pool_id = None if resolved.recipe is None else resolved.recipe.pool_id
            return await self._record(task, pool_id, lambda stored: {"refine": failed})
        start_id = None if resolved.recipe is None else resolved.recipe.id
        seconds = round(time.monotonic() - started, 3)
        return await self._record(
            task,
            reply.pool_id,
            lambda stored: judged(
                self._standing, stored, start_id, reply, recipe=recipe, seconds=seconds
            ),
        )

    async def _record(
        self, task: Task, pool_id: str | None, judge: Callable[[Task], dict[str, Any]]
    ) -> RefineOutcome:
        """Change the task, on a pool, as it is stored by now; every gateway's memory drops it.

        Raises:
            TaskNotFound: it was deleted.
            StoreUnavailable: Redis is away.
        """
        async with hold(self._shared.leases, recipe_lease(task)):
            found = await self._shared.store.get(task.tenant, task.id)
            if found is None:
                raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
            stored = found if pool_id is None else self._resolver.placed(found, pool_id)
            changed = stored.model_copy(update=judge(stored))
            if not await self._shared.store.update(changed):
                raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
        await self._resolver.invalidate(changed.tenant, changed.id)
        self._standing.note(stored, changed)
        await self._recipes.delete_lost(found, changed)
        assert changed.refine is not None
        return changed.refine


def _request(resolved: Resolved, probes: Sequence[ProbeText]) -> RefineRequest:
    task, recipe = resolved.task, resolved.recipe
    return RefineRequest(
        edge_model=task.edge_model,
        prompt=task.prompt,
        tools=task.tools,
        probes=tuple(probes) or None,
        start=None if recipe is None else recipe.text,
    )


def _count(outcome: RefineOutcome, *, seconds: float) -> None:
    metrics.REFINES.labels(outcome.status).inc()
    metrics.REFINE_SECONDS.observe(seconds)
    worth = outcome.fidelity_after if outcome.status == "done" else outcome.fidelity_before
    if worth is not None:
        metrics.TASK_FIDELITY.observe(worth)


def _checked(reply: RefineReply) -> Recipe:
    recipe = Recipe.from_text(reply.recipe)
    if (recipe.id, recipe.pool_id) != (reply.recipe_id, reply.pool_id):
        raise RecipeInvalid("the refiner's reply does not fit its recipe")
    return recipe


def _lease(tenant: str, task_id: str) -> str:
    return f"refine:{tenant}:{task_id}"
