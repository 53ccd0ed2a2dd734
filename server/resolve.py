"""Resolve: from a task id to the recipe it is served with.

    memory  ->  Redis  ->  compile (once, however many ask)  ->  fallback, always with a reason

Invariant: a resolved recipe is the one its task record names, by content; bytes in Redis that do
not have that digest are dropped and compiled again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from loragen import metrics
from loragen.errors import (
    DeadlineExceeded,
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    PromptTooLong,
    RecipeInvalid,
    StoreUnavailable,
    TaskNotFound,
)
from loragen.keys import TenantKeys
from loragen.recipe import Recipe
from loragen.store import Store
from loragen.task import PERMANENT_REASONS, FallbackReason, RecipeRef, Status, Task
from loragen.wire import CompileReply, CompileRequest
from server.generator import Generator
from server.memory import Key, MemoryTier, Resolved

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tiers:
    """What a resolver asks, in this order."""

    memory: MemoryTier
    store: Store
    generators: dict[str, Generator]
    """By edge model; a model without an entry serves prompt mode only."""


class Resolver:
    """Turns task ids into recipes."""

    def __init__(
        self, tiers: Tiers, keys: Callable[[str], TenantKeys], *, timeout_seconds: float
    ) -> None:
        self._tiers = tiers
        self._keys = keys
        self._timeout = timeout_seconds
        self._running: dict[Key, asyncio.Task[Resolved]] = {}

    async def resolve(self, tenant: str, task_id: str) -> Resolved:
        """Return the task with its recipe, or without one and with a reason.

        Raises:
            TaskNotFound: this tenant has no such task.
            StoreUnavailable: Redis is away and the task is not in memory.
        """
        key = (tenant, task_id)
        if (held := self._fresh(key)) is not None:
            return held
        try:
            return await self._confirm(key)
        except StoreUnavailable:
            entry = self._tiers.memory.get(key)
            if entry is None:
                raise
            # Kept for another time to live, so that not every request waits for a dead Redis.
            return self._keep(entry.resolved)

    async def compile(self, task: Task) -> Resolved:
        """Compile a task, joining a compile of it that is under way.

        The compile goes on when the caller is cancelled, for others and for the cache.
        """
        key = (task.tenant, task.id)
        if (held := self._fresh(key)) is not None and held.recipe is not None:
            return held  # it ended between the caller's look at Redis and now
        if key in self._running:
            metrics.COMPILE_COALESCED.inc()
        return await asyncio.shield(self.start(task))

    def start(self, task: Task) -> asyncio.Task[Resolved]:
        """Compile a task in the background, unless a compile of it is under way."""
        key = (task.tenant, task.id)
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(self._compile(task))
            self._running[key] = running
            running.add_done_callback(lambda done: self._finished(key, done))
        return running

    async def recompile(self, refused: Resolved) -> Resolved:
        """Compile again although the task has a recipe: a worker's pool is another."""
        task = refused.task
        key = (task.tenant, task.id)
        held = self._fresh(key)
        if held is not None and held.task.recipe != task.recipe:
            return held
        self._tiers.memory.drop(key)
        return await self.compile(task.model_copy(update={"recipe": None}))

    def set_aside(self, task: Task, reason: FallbackReason) -> Resolved:
        """Serve a task without its recipe until memory asks Redis again."""
        return self._keep(Resolved(task.model_copy(update={"fallback_reason": reason}), None))

    def forget(self, task: Task) -> None:
        """Drop a deleted task from memory."""
        self._tiers.memory.drop((task.tenant, task.id))

    async def close(self) -> None:
        """End the compiles under way."""
        running = list(self._running.values())
        for compile_task in running:
            compile_task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def recipe_key(self, task: Task, ref: RecipeRef) -> str:
        """Return the cache key of a task's recipe."""
        return self._keys(task.tenant).recipe_key(
            task_id=task.id,
            pool_id=ref.pool_id,
            generator_id=ref.generator_id,
            level=ref.level,
            template_hash=ref.template_hash,
        )

    def _finished(self, key: Key, done: asyncio.Task[Resolved]) -> None:
        self._running.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            # Read here, or asyncio complains of a failure nobody waited for.
            logger.warning("compile ended", extra={"error": type(error).__name__})

    def _fresh(self, key: Key) -> Resolved | None:
        entry = self._tiers.memory.get(key)
        if entry is None or not self._tiers.memory.is_fresh(entry):
            return None
        if entry.resolved.recipe is not None:
            metrics.RECIPE_CACHE_HITS.labels("memory").inc()
        return entry.resolved

    async def _confirm(self, key: Key) -> Resolved:
        task = await self._tiers.store.get(*key)
        if task is None:
            self._tiers.memory.drop(key)
            raise TaskNotFound(f"no task {key[1]!r}", param="task_id")
        # Another request may have resolved the task while this one waited.
        return self._fresh(key) or await self._from_store(task)

    async def _from_store(self, task: Task) -> Resolved:
        metrics.RECIPE_CACHE_MISSES.labels("memory").inc()
        if task.recipe is not None:
            recipe = await self._stored_recipe(task, task.recipe)
            if recipe is not None:
                metrics.RECIPE_CACHE_HITS.labels("redis").inc()
                return self._keep(Resolved(task, recipe))
            metrics.RECIPE_CACHE_MISSES.labels("redis").inc()
            return await self.compile(task)
        if task.status == "compiling":
            return await self.compile(task)
        # An earlier compile failed. Serve the fallback at once and try again beside it: a client
        # must not wait for a generator that is known to be away.
        if task.fallback_reason not in PERMANENT_REASONS:
            self.start(task)
        return self._keep(Resolved(task, None))

    async def _stored_recipe(self, task: Task, ref: RecipeRef) -> Recipe | None:
        key = self.recipe_key(task, ref)
        data = await self._tiers.store.get_recipe(key)
        if data is None:
            return None
        recipe = _intact(data, ref.pool_id)
        if recipe is None or recipe.id != ref.id:
            logger.warning("stored recipe is damaged", extra={"task_id": task.id})
            await self._tiers.store.delete_recipe(key)
            return None
        return recipe

    async def _compile(self, task: Task) -> Resolved:
        generator = self._tiers.generators.get(task.edge_model)
        if generator is None:
            return await self._fall_back(task, "no_generator")
        metrics.COMPILE_INFLIGHT.inc()
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                reply = await generator.compile(
                    CompileRequest(edge_model=task.edge_model, prompt=task.prompt, tools=task.tools)
                )
            recipe = _checked(reply)
        except (LoragenError, TimeoutError) as error:
            reason = _reason(error)
            metrics.COMPILE_FAILURES.labels(reason).inc()
            logger.warning("compile failed", extra={"task_id": task.id, "reason": reason})
            return await self._fall_back(task, reason)
        finally:
            metrics.COMPILE_INFLIGHT.dec()
        metrics.COMPILE_SECONDS.observe(time.monotonic() - started)
        return await self._accept(task, reply, recipe)

    async def _accept(self, task: Task, reply: CompileReply, recipe: Recipe) -> Resolved:
        ref = RecipeRef(
            id=recipe.id,
            bytes=len(recipe.data),
            pool_id=reply.pool_id,
            generator_id=reply.generator_id,
            level=reply.level,
            template_hash=reply.template_hash,
        )
        key = self.recipe_key(task, ref)
        recipe = await self._first_written(key, recipe)
        ref = ref.model_copy(update={"id": recipe.id, "bytes": len(recipe.data)})
        try:
            return await self._record(
                task, "ready", None, recipe=(ref, recipe), seconds=reply.compile_seconds
            )
        except TaskNotFound:  # deleted meanwhile: leave nothing of it behind
            await self._tiers.store.delete_recipe(key)
            raise

    async def _first_written(self, key: str, recipe: Recipe) -> Recipe:
        """Store a recipe and return the one that is there: another gateway's, if it was first."""
        stored = await self._tiers.store.put_recipe(key, recipe.data)
        first = _intact(stored, recipe.pool_id)
        if first is not None:
            return first
        await self._tiers.store.delete_recipe(key)
        await self._tiers.store.put_recipe(key, recipe.data)
        return recipe

    async def _fall_back(self, task: Task, reason: FallbackReason) -> Resolved:
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
            }
        )
        if changed != task and not await self._tiers.store.update(changed):
            raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
        return self._keep(Resolved(changed, recipe[1] if recipe else None))

    def _keep(self, resolved: Resolved) -> Resolved:
        self._tiers.memory.put(resolved)
        return resolved


def _intact(data: bytes, pool_id: str) -> Recipe | None:
    """Return the recipe in bytes from Redis, or None if they are not one of this pool."""
    try:
        recipe = Recipe.decode(data)
    except RecipeInvalid:
        return None
    return recipe if recipe.pool_id == pool_id else None


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
        case GeneratorUnavailable():
            return "generator_unavailable"
        case Overloaded():
            return "generator_overloaded"
        case DeadlineExceeded() | TimeoutError():
            return "compile_timeout"
        case _:
            return "compile_failed"
