"""Resolve: from a task id to the recipe it is served with.

    memory  ->  Redis  ->  compile (once, however many ask)  ->  fallback, always with a reason

Invariant: a resolved recipe is the one its task record names, by content; bytes in Redis that do
not have that digest are dropped and compiled again.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager

from loragen import metrics
from loragen.background import JOB_ENDS_SECONDS, end
from loragen.errors import StoreUnavailable, TaskNotFound
from loragen.leases import hold
from loragen.task import PERMANENT_REASONS, FallbackReason, RecipeRef, Task, TaskRecord
from server.compiler import Compiler, recipe_lease
from server.memory import Asked, Key, MemoryTier, Resolved
from server.pools import Pools
from server.recipe_tier import RecipeTier
from server.shared import Shared

logger = logging.getLogger(__name__)


class Resolver:
    """Turns task ids into recipes."""

    def __init__(
        self,
        memory: MemoryTier,
        shared: Shared,
        recipes: RecipeTier,
        compiler: Compiler,
        pools: Pools,
    ) -> None:
        self._memory = memory
        self._shared = shared
        self._recipes = recipes
        self._compiler = compiler
        self._pools = pools
        self._running: dict[Key, asyncio.Task[Resolved]] = {}

    async def resolve(self, tenant: str, task_id: str, *, wait: bool = True) -> Resolved:
        """Return the task with its recipe, or without one and with a reason.

        Without `wait` a compile that it takes goes on in the background.

        Raises:
            TaskNotFound: this tenant has no such task.
            StoreUnavailable: Redis is away and the task is not in memory.
        """
        key = (tenant, task_id)
        if (held := self._fresh(key)) is not None:
            return held
        try:
            return await self._confirm(key, wait=wait)
        except StoreUnavailable:
            entry = self._memory.get(key)
            if entry is None:
                raise
            # Kept for another time to live, so that not every request waits for a dead Redis.
            task = entry.resolved.task
            is_current = self._pools.is_current(task)
            resolved = entry.resolved if is_current else self._elsewhere(task)
            return self._keep(resolved, self._memory.asking())

    async def compile(self, task: Task, *, refused: RecipeRef | None = None) -> Resolved:
        """Compile a task, joining a compile of it that is under way.

        The compile goes on when the caller is cancelled, for others and for the cache.
        """
        key = (task.tenant, task.id)
        if (held := self._fresh(key)) is not None and held.recipe is not None:
            return held  # it ended between the caller's look at Redis and now
        if key in self._running:
            metrics.COMPILE_COALESCED.inc()
        return await asyncio.shield(self.start(task, refused=refused))

    def start(self, task: Task, *, refused: RecipeRef | None = None) -> asyncio.Task[Resolved]:
        """Compile a task in the background, unless a compile of it is under way."""
        key = (task.tenant, task.id)
        running = self._running.get(key)
        if running is None:
            running = asyncio.create_task(self._compiler.compile(task, refused=refused))
            self._running[key] = running
            running.add_done_callback(lambda done: self._finished(key, done))
        return running

    async def on_pool(self, tenant: str, task_id: str, pool_id: str) -> Resolved:
        """Return the task on a pool, with its recipe for that if it has one; nothing is compiled.

        Raises:
            TaskNotFound: this tenant has no such task.
            StoreUnavailable: Redis is away.
        """
        task = await self._shared.store.get(tenant, task_id)
        if task is None:
            raise TaskNotFound(f"no task {task_id!r}", param="task_id")
        view = task.on(pool_id)
        ref = view.recipe
        return Resolved(view, None if ref is None else await self._recipes.find(view, ref))

    def held(self, task: Task) -> AbstractAsyncContextManager[None]:
        """Wait until no gateway compiles a task, and keep it as it is for the length of a block.

        Nor does a measure or a refine change it meanwhile.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return hold(self._shared.leases, recipe_lease(task))

    async def recompile(self, refused: Resolved) -> Resolved:
        """Return what else a task can be served with: no worker takes the recipe it has.

        It is compiled again, unless other workers hold a pool for which it has one. Where pools are
        upgraded, the caller does not wait for that.
        """
        task, ref = refused.task, refused.task.recipe
        key = (task.tenant, task.id)
        held = self._fresh(key)
        if held is not None and held.task.recipe != ref:
            return held
        is_of_live_pool = ref is not None and ref.pool_id in self._pools.live(task.edge_model)
        if self._pools.is_managed(task.edge_model) and not is_of_live_pool:
            return await self.resolve(*key)
        self._memory.drop(key)
        if ref is not None and is_of_live_pool:  # it is not what it should be
            await self._recipes.delete(task, ref)
        return await self.compile(task, refused=ref)

    def set_aside(self, task: Task, reason: FallbackReason) -> Resolved:
        """Serve a task without its recipe until memory asks Redis again."""
        aside = Resolved(task.model_copy(update={"fallback_reason": reason}), None)
        if self._memory.get((task.tenant, task.id)) is not None:  # not deleted meanwhile
            self._memory.put(aside, self._memory.asking())
        return aside

    def forget(self, tenant: str, task_id: str) -> None:
        """Drop a task from this gateway's memory."""
        self._memory.drop((tenant, task_id))

    async def invalidate(self, tenant: str, task_id: str) -> None:
        """Drop a changed or deleted task from the memory of every gateway.

        Call it after Redis holds the change. Where Redis cannot carry the message, the time to
        live of the memory tier does it.
        """
        self.forget(tenant, task_id)
        try:
            await self._shared.invalidations.publish(tenant, task_id)
        except StoreUnavailable:
            logger.warning("invalidation not sent", extra={"task_id": task_id})

    async def follow_invalidations(self) -> None:
        """Drop what other gateways change or delete, or may have, until cancelled."""
        await self._shared.invalidations.follow(self.forget, self._memory.clear)

    async def close(self) -> None:
        """End the compiles under way."""
        await end(list(self._running.values()), again_seconds=JOB_ENDS_SECONDS)

    async def delete_recipes(self, task: TaskRecord) -> None:
        """Forget the recipes of a deleted task."""
        for ref in task.recipes:
            await self._recipes.delete(task, ref)

    def placed(self, task: Task, pool_id: str) -> Task:
        """Return a task on a pool, as `Pools.placed` does."""
        return self._pools.placed(task, pool_id)

    def is_managed(self, model: str) -> bool:
        """Whether a pool of the model was ever upgraded."""
        return self._pools.is_managed(model)

    def _finished(self, key: Key, done: asyncio.Task[Resolved]) -> None:
        self._running.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            # Read here, or asyncio complains of a failure nobody waited for.
            logger.warning("compile ended", extra={"error": type(error).__name__})

    def _fresh(self, key: Key) -> Resolved | None:
        entry = self._memory.get(key)
        if entry is None or not self._memory.is_fresh(entry):
            return None
        if not self._pools.is_current(entry.resolved.task):
            return None
        if entry.resolved.recipe is not None:
            metrics.RECIPE_CACHE_HITS.labels("memory").inc()
        return entry.resolved

    async def _confirm(self, key: Key, *, wait: bool) -> Resolved:
        asked = self._memory.asking()
        task = await self._shared.store.get(*key)
        if task is None:
            self._memory.drop(key)
            raise TaskNotFound(f"no task {key[1]!r}", param="task_id")
        # Another request may have resolved the task while this one waited.
        return self._fresh(key) or await self._from_store(task, asked, wait=wait)

    async def _from_store(self, task: Task, asked: Asked, *, wait: bool) -> Resolved:
        metrics.RECIPE_CACHE_MISSES.labels("memory").inc()
        task = self._pools.chosen(task)
        if task.recipe is not None:
            recipe = await self._recipes.find(task, task.recipe)
            if recipe is not None:
                metrics.RECIPE_CACHE_HITS.labels("redis").inc()
                return self._keep(Resolved(task, recipe), asked)
            metrics.RECIPE_CACHE_MISSES.labels("redis").inc()
        elif task.spare is not None and task.status == "compiling":
            self.start(task)
            return self._keep(self._elsewhere(task), asked)
        if task.recipe is not None or task.status == "compiling":
            if wait:
                return await self.compile(task)
            self.start(task)
            return Resolved(task, None)
        # An earlier compile failed. Serve the fallback at once and try again beside it: a client
        # must not wait for a generator that is known to be away.
        if task.fallback_reason not in PERMANENT_REASONS:
            self.start(task)
        return self._keep(Resolved(task, None), asked)

    def _elsewhere(self, task: Task) -> Resolved:
        """Return a task without a recipe: no worker holds a pool for which it has one at hand."""
        fallen = {"status": "fallback", "fallback_reason": "worker_pool_mismatch"}
        return Resolved(self._pools.chosen(task).model_copy(update=fallen), None)

    def _keep(self, resolved: Resolved, asked: Asked) -> Resolved:
        self._memory.put(resolved, asked)
        return resolved
