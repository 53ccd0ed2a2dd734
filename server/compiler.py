"""Compiler: from a task to its recipe, recorded; or to a recorded reason why there is none.

Of all gateways one compiles a task, under a lease, and the others take what it has recorded. When
it dies its lease ends, and the next one compiles. A recipe is recorded for the pool it is of, and
what a task has for one other pool stays.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

from loragen import metrics
from loragen.errors import (
    DeadlineExceeded,
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    PromptTooLong,
    RecipeInvalid,
    RecipeMismatch,
    StoreUnavailable,
    TaskNotFound,
)
from loragen.leases import hold
from loragen.recipe import Recipe
from loragen.task import FallbackReason, RecipeRef, Status, Task
from loragen.wire import CompileReply, CompileRequest
from server.gate_shares import GateShares
from server.generator import Generator
from server.memory import MemoryTier, Resolved
from server.pools import Pools
from server.recipe_tier import RecipeTier
from server.shared import Shared
from server.turns import Turns

logger = logging.getLogger(__name__)

_UNTIL_REFINED: Final[frozenset[FallbackReason | None]] = frozenset(
    {"no_generator", "worker_pool_mismatch"}
)
"""Why a task of a model without generator has no recipe; nothing but a refine changes it."""


class Compiler:
    """Compiles one task at a time and puts the outcome where every request finds it."""

    def __init__(
        self,
        generators: Mapping[str, Generator],
        shared: Shared,
        memory: MemoryTier,
        recipes: RecipeTier,
        pools: Pools,
        *,
        timeout_seconds: float,
        at_once: int,
    ) -> None:
        """Take the generators by edge model; without one only a refine makes recipes.

        Each is asked for so many recipes at once, beyond which tenants take turns.
        """
        self._generators = generators
        self._shared = shared
        self._memory = memory
        self._recipes = recipes
        self._pools = pools
        self._timeout = timeout_seconds
        self._turns = {model: Turns(at_once) for model in generators}
        self._shares = GateShares()
        self._compiled: Callable[[Task], None] = lambda _: None

    def follow(self, compiled: Callable[[Task], None]) -> None:
        """Call `compiled` with every task that has a new recipe."""
        self._compiled = compiled

    async def compile(self, task: Task, *, refused: RecipeRef | None = None) -> Resolved:
        """Return the task with a recipe, or without one and with a reason.

        A recipe that a worker has `refused` is compiled again, or dropped where nothing compiles.

        Raises:
            TaskNotFound: the task was deleted.
            StoreUnavailable: Redis is away.
        """
        generator = self._generators.get(task.edge_model)
        if generator is None and task.recipe is None and task.fallback_reason in _UNTIL_REFINED:
            return Resolved(task, None)  # Redis knows it so already
        deadline = asyncio.get_running_loop().time() + self._timeout
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout_at(deadline):
                    if generator is not None:
                        turns = self._turns[task.edge_model]
                        await held.enter_async_context(turns.turn(task.tenant))
                    await held.enter_async_context(hold(self._shared.leases, recipe_lease(task)))
            except (TimeoutError, Overloaded) as error:
                # Nothing to record: another gateway compiles it, or the next request has it tried.
                late = task.model_copy(update={"fallback_reason": _reason(error)})
                return Resolved(late, None)
            asked = self._memory.asking()
            stored = await self._stored(task)
            found = await self._compiled_elsewhere(task, self._pools.chosen(stored), refused)
            if found is not None:
                metrics.COMPILE_COALESCED.inc()
                self._memory.put(found, asked)
                return found
            if generator is None:
                is_elsewhere = refused is not None or self._pools.chosen(stored).spare is not None
                return await self._fall_back(
                    stored, "worker_pool_mismatch" if is_elsewhere else "no_generator"
                )
            model = task.edge_model
            wanted = self._pools.order(model) if self._pools.is_managed(model) else ()
            try:
                reply, recipe = await self._ask(stored, generator, wanted, deadline=deadline)
            except (LoragenError, TimeoutError) as error:
                return await self._fall_back(stored, _reason(error))
            return await self._accept(stored, reply, recipe)

    async def compile_for(self, task: Task, pool_id: str) -> FallbackReason | None:
        """Compile a task for a pool beside the one that it is served from; return why it failed.

        Raises:
            TaskNotFound: the task was deleted.
            StoreUnavailable: Redis is away.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with AsyncExitStack() as lease:
                async with asyncio.timeout_at(deadline):
                    await lease.enter_async_context(hold(self._shared.leases, recipe_lease(task)))
                stored = await self._stored(task)
                if stored.on(pool_id).recipe is not None:
                    return None
                generator = self._generators[task.edge_model]
                reply, recipe = await self._ask(stored, generator, (pool_id,), deadline=deadline)
                if recipe.pool_id != pool_id:
                    return "worker_pool_mismatch"
                await self._accept(stored, reply, recipe)
        except (TaskNotFound, StoreUnavailable):
            raise
        except (LoragenError, TimeoutError) as error:
            return _reason(error)
        return None

    async def _stored(self, task: Task) -> Task:
        stored = await self._shared.store.get(task.tenant, task.id)
        if stored is None:
            raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
        return stored

    async def _compiled_elsewhere(
        self, task: Task, stored: Task, refused: RecipeRef | None
    ) -> Resolved | None:
        """Return what another gateway has recorded since `task` was read, if it has."""
        ref = stored.recipe
        if ref is None:
            has_failed = task.status == "compiling" != stored.status
            return Resolved(stored, None) if has_failed else None
        if ref == refused:
            return None
        recipe = await self._recipes.find(stored, ref)
        return None if recipe is None else Resolved(stored, recipe)

    async def _ask(
        self, task: Task, generator: Generator, wanted: Sequence[str], *, deadline: float
    ) -> tuple[CompileReply, Recipe]:
        """Return a recipe for the first of the pools that the generator knows, or for its own.

        Raises:
            LoragenError, TimeoutError: why there is none.
        """
        metrics.COMPILE_INFLIGHT.inc()
        started = time.monotonic()
        try:
            async with asyncio.timeout_at(deadline):
                reply = await _reply(task, generator, wanted)
            recipe = _checked(reply)
        except (LoragenError, TimeoutError) as error:
            reason = _reason(error)
            metrics.COMPILE_FAILURES.labels(reason).inc()
            logger.warning("compile failed", extra={"task_id": task.id, "reason": reason})
            raise
        finally:
            metrics.COMPILE_INFLIGHT.dec()
        metrics.COMPILE_SECONDS.observe(time.monotonic() - started)
        return reply, recipe

    async def _accept(self, stored: Task, reply: CompileReply, recipe: Recipe) -> Resolved:
        task = self._pools.placed(stored, recipe.pool_id)
        ref = RecipeRef(
            id=recipe.id,
            bytes=len(recipe.data),
            pool_id=reply.pool_id,
            generator_id=reply.generator_id,
            level=reply.level,
            template_hash=reply.template_hash,
        )
        recipe = await self._recipes.put(task, ref, recipe)
        ref = ref.model_copy(update={"id": recipe.id, "bytes": len(recipe.data)})
        try:
            resolved = await self._record(
                task, "ready", None, recipe=(ref, recipe), seconds=reply.compile_seconds
            )
        except TaskNotFound:  # deleted meanwhile: leave nothing of it behind
            await self._recipes.delete(task, ref)
            raise
        await self._recipes.delete_lost(stored, resolved.task)
        self._shares.add(task.edge_model, recipe)
        self._compiled(resolved.task)
        return resolved

    async def _fall_back(self, stored: Task, reason: FallbackReason) -> Resolved:
        order = self._pools.order(stored.edge_model)
        # What it has for a pool that no worker holds is kept: that pool may come back.
        task = stored.on(order[0]) if order else stored
        status: Status = "failed" if task.policy.fallback == "error" else "fallback"
        return await self._record(task, status, reason)

    async def _record(
        self,
        task: Task,
        status: Status,
        reason: FallbackReason | None,
        *,
        recipe: tuple[RecipeRef, Recipe] | None = None,
        seconds: float | None = None,
    ) -> Resolved:
        changed = task.model_copy(
            update={
                "status": status,
                "fallback_reason": reason,
                "recipe": recipe[0] if recipe else None,
                "compile_seconds": seconds,
                "ready_at": int(time.time()) if recipe else None,
                "refined": b"",
            }
        )
        resolved = Resolved(changed, recipe[1] if recipe else None)
        if recipe is None and changed == task:
            return resolved  # Redis and memory know it so already
        asked = self._memory.asking()
        if not await self._shared.store.update(changed):
            raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
        if self._pools.chosen(changed).recipe == changed.recipe:
            self._memory.put(resolved, asked)
        else:  # it is served from another pool
            self._memory.drop((task.tenant, task.id))
        return resolved


def recipe_lease(task: Task) -> str:
    """Return the name of the lease under which a task's recipe is changed."""
    return f"compile:{task.tenant}:{task.id}"


async def _reply(task: Task, generator: Generator, wanted: Sequence[str]) -> CompileReply:
    request = CompileRequest(edge_model=task.edge_model, prompt=task.prompt, tools=task.tools)
    if not wanted:
        return await generator.compile(request)
    *others, last = (request.model_copy(update={"pool_id": pool_id}) for pool_id in wanted)
    for each in others:
        with suppress(RecipeMismatch):
            return await generator.compile(each)
    return await generator.compile(last)


def _checked(reply: CompileReply) -> Recipe:
    recipe = Recipe.from_text(reply.recipe)
    said = (reply.recipe_id, reply.pool_id, reply.level)
    if (recipe.id, recipe.pool_id, recipe.level) != said:
        raise RecipeInvalid("the generator's reply does not fit its recipe")
    return recipe


def _reason(error: LoragenError | TimeoutError) -> FallbackReason:
    match error:
        case PromptTooLong():
            return "prompt_too_long"
        case RecipeMismatch():
            return "worker_pool_mismatch"
        case GeneratorUnavailable():
            return "generator_unavailable"
        case Overloaded():
            return "generator_overloaded"
        case DeadlineExceeded() | TimeoutError():
            return "compile_timeout"
        case _:
            return "compile_failed"
