"""The Redis tier: recipes by their keys, refined ones with their tasks.

Of one key the first written recipe is everyone's.

Invariant: what it returns is whole. Damaged bytes are dropped, and their recipe compiled again; but
a reply may be to another request, so what does not fit is looked at twice.
"""

import logging
from collections.abc import Callable
from typing import Final

from loragen import metrics
from loragen.errors import RecipeInvalid, StoreUnavailable
from loragen.keys import TenantKeys
from loragen.recipe import Recipe
from loragen.store import Store
from loragen.task import RecipeRef, Task, TaskRecord

logger = logging.getLogger(__name__)

_KEY_CHARS: Final = 32
"""128 bits tell a tenant's recipes apart; what is found is checked by its content."""
_MENDS: Final = 2
"""Times that damaged bytes are written over before the store is given up."""


class RecipeTier:
    """The recipes of tasks in the store. Every method raises StoreUnavailable."""

    def __init__(self, store: Store, keys: Callable[[str], TenantKeys]) -> None:
        self._store = store
        self._keys = keys

    async def find(self, task: Task, ref: RecipeRef) -> Recipe | None:
        """Return the recipe that a reference means, by its content."""
        for kept in filter(None, (task.refined, task.spare_refined)):
            refined = _meant(kept, ref)
            if refined is not None:
                return refined
        for key in self.keys(task, ref):
            recipe = await self._look(key, task, ref)
            if recipe is not None:
                return recipe
        return None

    async def put(
        self, task: Task, ref: RecipeRef, recipe: Recipe, *, mends: int = _MENDS
    ) -> Recipe:
        """Store a recipe and return the one that is there: another gateway's, if it was first.

        Raises:
            StoreUnavailable: Redis is away, gives two, or keeps nothing that can be read.
        """
        key = self.keys(task, ref)[0]
        first = await self._store.put_recipe(key, recipe.data)
        if first == recipe.data:
            return recipe
        # Nothing in it says whose it is, so it is looked at twice.
        second = await self._store.get_recipe(key)
        if second is None:  # it expired between the looks, or was evicted
            return await self.put(task, ref, recipe)
        if second != first:
            if _decoded(first) is not None:
                _count_misdirected(task)
            elif second == recipe.data:  # another gateway mended what was damaged
                return recipe
            raise StoreUnavailable("the store gave two recipes of one task", retry_after=1.0)
        if (kept := _intact(first, recipe.pool_id)) is not None:
            return kept
        if not mends:
            raise StoreUnavailable("the store keeps no recipe of one task", retry_after=1.0)
        await self._drop_damaged(key, task)
        # Another gateway may mend it at the same time.
        return await self.put(task, ref, recipe, mends=mends - 1)

    async def renew(self, task: TaskRecord, ref: RecipeRef) -> int:
        """Let a recipe be found and sealed by the newest versions; 1 if that was to be done."""
        newest, *older = self.keys(task, ref)
        renewed = False
        for key in older:
            data = await self._store.get_recipe(key)
            if data is not None:
                await self._store.put_recipe(newest, data)
                await self._store.delete_recipe(key)
                renewed = True
        return int(await self._store.reseal_recipe(newest) or renewed)

    async def delete(self, task: TaskRecord, ref: RecipeRef) -> None:
        """Forget a recipe."""
        for key in self.keys(task, ref):
            await self._store.delete_recipe(key)

    async def delete_lost(self, before: Task, after: Task) -> None:
        """Forget the recipes that a task had and has no longer."""
        kept = {key for ref in after.recipes for key in self.keys(after, ref)}
        for ref in before.recipes:
            if kept.isdisjoint(self.keys(before, ref)):
                await self.delete(before, ref)

    def keys(self, task: TaskRecord, ref: RecipeRef) -> list[str]:
        """Return the keys a task's recipe may be found by, first the one to write.

        They are of one generator and pool, and begin with the tenant.
        """
        keys = self._keys(task.tenant).recipe_keys(
            task_id=task.id,
            pool_id=ref.pool_id,
            generator_id=ref.generator_id,
            level=ref.level,
            template_hash=ref.template_hash,
        )
        return [f"{task.tenant}:{key[:_KEY_CHARS]}" for key in keys]

    async def _look(self, key: str, task: Task, ref: RecipeRef) -> Recipe | None:
        """Return the recipe under a key; what is there instead of it is dropped."""
        first = await self._store.get_recipe(key)
        if first is None:
            return None
        if (recipe := _meant(first, ref)) is not None:
            return recipe
        second = await self._store.get_recipe(key)
        if second is None:
            return None
        if (recipe := _meant(second, ref)) is not None:
            if _decoded(first) is not None:  # whole, so no damage that was mended between the looks
                _count_misdirected(task)
            return recipe
        await self._drop_damaged(key, task)
        return None

    async def _drop_damaged(self, key: str, task: Task) -> None:
        logger.warning("stored recipe is damaged", extra={"task_id": task.id})
        await self._store.delete_recipe(key)


def _intact(data: bytes, pool_id: str) -> Recipe | None:
    """Return the recipe in bytes from Redis, or None if they are not one of this pool."""
    recipe = _decoded(data)
    return recipe if recipe is not None and recipe.pool_id == pool_id else None


def _meant(data: bytes, ref: RecipeRef) -> Recipe | None:
    """Return the recipe in bytes from Redis, or None if they are not the one of a reference."""
    recipe = _intact(data, ref.pool_id)
    return recipe if recipe is not None and recipe.id == ref.id else None


def _decoded(data: bytes) -> Recipe | None:
    try:
        return Recipe.decode(data)
    except RecipeInvalid:
        return None


def _count_misdirected(task: Task) -> None:
    metrics.MISDIRECTED.labels("store").inc()
    logger.error("the store's reply is to another request", extra={"task_id": task.id})
