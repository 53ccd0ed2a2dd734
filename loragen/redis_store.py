"""The store in Redis.

    {ns}:task:{tenant}:{task_id}   hash    the task (`task_codec`), link = another id of its prompt
    {ns}:links:{tenant}            hash    another id of a task's prompt -> task id
    {ns}:tasks:{tenant}            zset    task ids by time of creation
    {ns}:gone:{tenant}:{digest}    string  when a deleted task was created, for an hour
    {ns}:recipe:{key}              string  recipe bytes, sealed if a key is set, with a time to
                                           live; a key begins with the tenant

Of these only recipes and implicit tasks carry a time to live, so `maxmemory-policy volatile-lru`
evicts those and never a task that someone registered. An evicted recipe is compiled again from its
task; a refined one could not be, and is part of it. An implicit task is made again when its prompt
comes again.
"""

import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Final, Self

import redis.asyncio as redis

from loragen import metrics, store_scripts
from loragen.errors import SealBroken, SealUnknown, TaskNotFound
from loragen.limits import excess
from loragen.redis_client import as_bytes, connect, mapped
from loragen.resealing import Resealed, Resealing
from loragen.seal import Seal
from loragen.store import Deleted, Page
from loragen.task import Task, TaskRecord
from loragen.task_codec import (
    FIELDS,
    dump_record,
    dump_sealed,
    load_deleted,
    load_record,
    load_task,
)

logger = logging.getLogger(__name__)

_GONE_SECONDS: Final = 3_600
"""How long a page can go on behind a task that was deleted since."""


class RedisStore:
    """The store on Redis 7 or Valkey."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        recipe_ttl_seconds: int,
        implicit_ttl_seconds: int = 86_400,
        seal: Seal | None = None,
    ) -> None:
        self._redis = client
        self._namespace = namespace
        self._ttl = recipe_ttl_seconds
        self._implicit_ttl = implicit_ttl_seconds
        self._seal = seal or Seal()
        self._resealing = Resealing(client, namespace=namespace, seal=self._seal)
        self._create = client.register_script(store_scripts.CREATE)
        self._update = client.register_script(store_scripts.UPDATE)
        self._delete = client.register_script(store_scripts.DELETE)
        self._link = client.register_script(store_scripts.LINK)
        self._page = client.register_script(store_scripts.PAGE)

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        namespace: str,
        recipe_ttl_seconds: int,
        timeout_seconds: float,
        seal: Seal | None = None,
    ) -> Self:
        """Return a store for `url`; connections open at first use.

        Raises:
            ConfigError: the URL is not one of Redis.
        """
        client = connect(url, timeout_seconds=timeout_seconds)
        return cls(client, namespace=namespace, recipe_ttl_seconds=recipe_ttl_seconds, seal=seal)

    async def create(
        self, task: Task, *, most: int | None = None, others: Sequence[str] = ()
    ) -> bool:
        """Write a new task; False, and nothing written, if it exists; see `Store.create`.

        Raises:
            LimitExceeded: its tenant has `most` tasks.
        """
        key = self._task(task.tenant, task.id)
        sealed = dump_sealed(task, self._seal, key)
        async with mapped():
            written = await self._create(
                keys=[
                    *self._task_keys(task.tenant, task.id),
                    self._links(task.tenant),
                    *(self._task(task.tenant, other) for other in others),
                ],
                args=[
                    task.id,
                    dump_record(task),
                    sealed["prompt"],
                    task.created_at,
                    sealed["tools"],
                    self._implicit_ttl if task.is_implicit else "",
                    sealed["refined"],
                    sealed["probes"],
                    "" if most is None else most,
                    sealed["spare_refined"],
                ],
            )
        if written == -1:
            raise excess("tasks", most or 0)
        return bool(written)

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt and tools; an implicit one lives on from here."""
        key = self._task(tenant, task_id)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(key, FIELDS)
        pipeline.expire(key, self._implicit_ttl, xx=True)  # only where it had a time to live
        async with mapped():
            row, _ = await pipeline.execute()
        return load_task(tenant, task_id, key, dict(zip(FIELDS, row, strict=True)), self._seal)

    async def find(self, tenant: str, ids: Sequence[str]) -> str | None:
        """Return the id of the task there is of a prompt with these ids, or a link from one."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in ids:
            pipeline.exists(self._task(tenant, task_id))
        pipeline.hmget(self._links(tenant), list(ids))
        async with mapped():
            *exist, links = await pipeline.execute()
        own = [task_id for task_id, is_there in zip(ids, exist, strict=True) if is_there]
        linked = [as_bytes(link).decode() for link in links if link is not None]
        return next(iter([*own, *linked]), None)

    async def link(self, tenant: str, task_id: str, other: str) -> bool:
        """Let a task be found by another id of its prompt; see `Store.link`."""
        keys = [self._task(tenant, task_id), self._links(tenant)]
        async with mapped():
            return bool(await self._link(keys=keys, args=[task_id, other]))

    async def update(self, task: Task) -> bool:
        """Replace record and refined recipes of an existing task; False if it was deleted."""
        key = self._task(task.tenant, task.id)
        sealed = dump_sealed(task, self._seal, key)
        args = [dump_record(task), sealed["refined"], sealed["spare_refined"]]
        async with mapped():
            written = await self._update(keys=[key], args=args)
        return bool(written)

    async def delete(self, tenant: str, task_id: str) -> Deleted | None:
        """Delete a task, not its recipes, and return what it was; None if there was none."""
        keys = [
            *self._task_keys(tenant, task_id),
            self._gone(tenant, task_id),
            self._links(tenant),
        ]
        async with mapped():
            record = await self._delete(keys=keys, args=[task_id, _GONE_SECONDS])
        return None if record is None else Deleted(load_deleted(tenant, task_id, record))

    async def page(
        self, tenant: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> Page:
        """Return the tenant's tasks behind task `after`; see `Store.page`.

        Raises:
            TaskNotFound: there was no task `after` within the last hour.
        """
        cursor = after or ""
        async with mapped():
            found = await self._page(
                keys=[self._tasks(tenant), self._gone(tenant, cursor)],
                args=[cursor, limit + 1, int(newest_first)],
            )
        if found is None:
            raise TaskNotFound("no task of that id to go on after", param="after")
        ids = [as_bytes(task_id).decode() for task_id in found]
        records = await self.records(tenant, ids[:limit])
        return Page(list(records.values()), has_more=len(ids) > limit)

    async def records(self, tenant: str, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Return those of the tasks that exist, by id."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.hget(self._task(tenant, task_id), "record")
        async with mapped():
            rows = await pipeline.execute()
        pairs = zip(task_ids, rows, strict=True)
        return {
            task_id: load_record(tenant, task_id, row) for task_id, row in pairs if row is not None
        }

    async def get_recipe(self, key: str) -> bytes | None:
        """Return recipe bytes and keep them for another time to live."""
        stored = await self._sealed_recipe(key)
        return None if stored is None else await self._opened(key, stored)

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        """Store recipe bytes unless some are there; return those that are."""
        name = self._recipe(key)
        sealed = self._seal.close(_tenant_of(key), name, data)
        async with mapped():
            stored = await self._redis.set(name, sealed, nx=True, get=True, ex=self._ttl)
        kept = None if stored is None else await self._opened(key, as_bytes(stored))
        if stored is not None and kept is None:  # it was of no use to anybody, and is gone
            return await self.put_recipe(key, data)
        return data if kept is None else kept

    async def delete_recipe(self, key: str) -> None:
        """Forget a recipe."""
        async with mapped():
            await self._redis.delete(self._recipe(key))

    async def _sealed_recipe(self, key: str) -> bytes | None:
        async with mapped():
            stored = await self._redis.getex(self._recipe(key), ex=self._ttl)
        return None if stored is None else as_bytes(stored)

    async def _opened(self, key: str, stored: bytes) -> bytes | None:
        """Return recipe bytes, or None, and nothing is there any more, if they cannot be opened.

        Raises:
            SealBroken, SealUnknown: Redis gave two values, and neither can be opened.
        """
        tenant, name = _tenant_of(key), self._recipe(key)
        try:
            return self._seal.open(tenant, name, stored)
        except (SealBroken, SealUnknown) as error:
            reason = error.message
        # A reply may be to another request, and so sealed for another place: it is looked at twice.
        again = await self._sealed_recipe(key)
        if again is None:
            return None
        if again == stored:
            logger.warning("stored recipe cannot be opened", extra={"reason": reason})
            await self.delete_recipe(key)
            return None
        metrics.MISDIRECTED.labels("store").inc()
        logger.error("the store's reply is to another request")
        return self._seal.open(tenant, name, again)

    def tasks(self) -> AsyncIterator[tuple[str, str]]:
        """Yield tenant and id of every task that is there all along, some of them twice."""
        return self._resealing.tasks()

    async def reseal(self, tenant: str, task_id: str) -> Resealed:
        """Seal what of a task is not sealed as it would be now."""
        return await self._resealing.task(tenant, self._task(tenant, task_id))

    async def reseal_recipe(self, key: str) -> bool:
        """Seal a recipe that is not sealed as it would be now; False if there is nothing to do."""
        return await self._resealing.recipe(_tenant_of(key), self._recipe(key))

    async def ping(self) -> None:
        """Return if the store answers."""
        async with mapped():
            await self._redis.ping()

    async def close(self) -> None:
        """Give back the connections."""
        await self._redis.aclose()

    def _task(self, tenant: str, task_id: str) -> str:
        return task_key(self._namespace, tenant, task_id)

    def _task_keys(self, tenant: str, task_id: str) -> tuple[str, str]:
        return self._task(tenant, task_id), self._tasks(tenant)

    def _tasks(self, tenant: str) -> str:
        return f"{self._namespace}:tasks:{tenant}"

    def _links(self, tenant: str) -> str:
        return f"{self._namespace}:links:{tenant}"

    def _gone(self, tenant: str, task_id: str) -> str:
        # A digest, because a deleted task's id is to be found nowhere.
        digest = hashlib.sha256(task_id.encode()).hexdigest()[:32]
        return f"{self._namespace}:gone:{tenant}:{digest}"

    def _recipe(self, key: str) -> str:
        return f"{self._namespace}:recipe:{key}"


def task_key(namespace: str, tenant: str, task_id: str) -> str:
    """Return the key that exists as long as a task does."""
    return f"{namespace}:task:{tenant}:{task_id}"


def _tenant_of(recipe_key: str) -> str:
    return recipe_key.partition(":")[0]
