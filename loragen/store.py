"""Store: tasks (durable) and recipes (evictable) in Redis, the only module that talks to it.

    {ns}:task:{tenant}:{task_id}   hash    record = JSON, prompt = text
    {ns}:tasks:{tenant}            zset    task ids by time of creation
    {ns}:names:{tenant}            hash    name -> task id
    {ns}:recipe:{recipe key}       string  recipe bytes, with a time to live

Only recipes carry a time to live, so `maxmemory-policy volatile-lru` evicts recipes and never a
task; an evicted recipe is compiled again from its task.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, Self

import redis.asyncio as redis
from pydantic import ValidationError
from redis.exceptions import RedisError

from loragen.errors import ConfigError, StoreUnavailable
from loragen.task import Task

_CREATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'prompt', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
return 1
"""
_UPDATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1])
return 1
"""


class Store(Protocol):
    """Where tasks and recipes live. Every method raises StoreUnavailable when it cannot answer."""

    async def create(self, task: Task) -> bool:
        """Write a new task; False, and nothing written, if it exists."""

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt."""

    async def update(self, task: Task) -> bool:
        """Replace the record of an existing task; False if it was deleted."""

    async def delete(self, tenant: str, task_id: str) -> bool:
        """Delete a task and its name; False if there was none."""

    async def page(self, tenant: str, *, limit: int) -> list[Task]:
        """Return the tenant's newest tasks, newest first."""

    async def claim_name(self, tenant: str, name: str, task_id: str) -> str:
        """Give a free name to a task and return the task that holds it now."""

    async def find_name(self, tenant: str, name: str) -> str | None:
        """Return the task id a name stands for."""

    async def names(self, tenant: str) -> dict[str, str]:
        """Return the tenant's names and their task ids."""

    async def get_recipe(self, key: str) -> bytes | None:
        """Return recipe bytes and keep them for another time to live."""

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        """Store recipe bytes unless some are there; return those that are."""

    async def delete_recipe(self, key: str) -> None:
        """Forget a recipe."""

    async def ping(self) -> None:
        """Return if the store answers."""

    async def close(self) -> None:
        """Give back the connections."""


class RedisStore:
    """The store on Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str, recipe_ttl_seconds: int) -> None:
        self._redis = client
        self._namespace = namespace
        self._ttl = recipe_ttl_seconds
        self._create = client.register_script(_CREATE)
        self._update = client.register_script(_UPDATE)

    @classmethod
    def connect(
        cls, url: str, *, namespace: str, recipe_ttl_seconds: int, timeout_seconds: float
    ) -> Self:
        """Return a store for `url`; connections open at first use.

        Raises:
            ConfigError: the URL is not one of Redis.
        """
        try:
            client = redis.Redis.from_url(
                url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
            )
        except ValueError as error:
            raise ConfigError("redis_url must be redis://, rediss:// or unix://") from error
        return cls(client, namespace=namespace, recipe_ttl_seconds=recipe_ttl_seconds)

    async def create(self, task: Task) -> bool:
        """Write a new task; False, and nothing written, if it exists."""
        async with _mapped():
            written = await self._create(
                keys=[self._task(task.tenant, task.id), self._tasks(task.tenant)],
                args=[task.model_dump_json(), task.prompt, task.created_at, task.id],
            )
        return bool(written)

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt."""
        async with _mapped():
            row = await self._redis.hmget(self._task(tenant, task_id), ["record", "prompt"])
        return _task(row)

    async def update(self, task: Task) -> bool:
        """Replace the record of an existing task; False if it was deleted."""
        async with _mapped():
            written = await self._update(
                keys=[self._task(task.tenant, task.id)], args=[task.model_dump_json()]
            )
        return bool(written)

    async def delete(self, tenant: str, task_id: str) -> bool:
        """Delete a task and its name; False if there was none."""
        task = await self.get(tenant, task_id)
        async with _mapped():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.delete(self._task(tenant, task_id))
            pipeline.zrem(self._tasks(tenant), task_id)
            if task is not None and task.name is not None:
                pipeline.hdel(self._names(tenant), task.name)
            deleted = (await pipeline.execute())[0]
        return bool(deleted)

    async def page(self, tenant: str, *, limit: int) -> list[Task]:
        """Return the tenant's newest tasks, newest first."""
        async with _mapped():
            ids = await self._redis.zrange(self._tasks(tenant), 0, limit - 1, desc=True)
            pipeline = self._redis.pipeline(transaction=False)
            for task_id in ids:
                key = self._task(tenant, _bytes(task_id).decode())
                pipeline.hmget(key, ["record", "prompt"])
            rows = await pipeline.execute()
        return [task for row in rows if (task := _task(row)) is not None]

    async def claim_name(self, tenant: str, name: str, task_id: str) -> str:
        """Give a free name to a task and return the task that holds it now."""
        async with _mapped():
            await self._redis.hsetnx(self._names(tenant), name, task_id)
            holder = await self._redis.hget(self._names(tenant), name)
        return task_id if holder is None else _bytes(holder).decode()

    async def find_name(self, tenant: str, name: str) -> str | None:
        """Return the task id a name stands for."""
        async with _mapped():
            task_id = await self._redis.hget(self._names(tenant), name)
        return None if task_id is None else _bytes(task_id).decode()

    async def names(self, tenant: str) -> dict[str, str]:
        """Return the tenant's names and their task ids."""
        async with _mapped():
            pairs = await self._redis.hgetall(self._names(tenant))
        return {_bytes(name).decode(): _bytes(task).decode() for name, task in pairs.items()}

    async def get_recipe(self, key: str) -> bytes | None:
        """Return recipe bytes and keep them for another time to live."""
        async with _mapped():
            data = await self._redis.getex(self._recipe(key), ex=self._ttl)
        return None if data is None else _bytes(data)

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        """Store recipe bytes unless some are there; return those that are."""
        async with _mapped():
            stored = await self._redis.set(self._recipe(key), data, nx=True, get=True, ex=self._ttl)
        return data if stored is None else _bytes(stored)

    async def delete_recipe(self, key: str) -> None:
        """Forget a recipe."""
        async with _mapped():
            await self._redis.delete(self._recipe(key))

    async def ping(self) -> None:
        """Return if the store answers."""
        async with _mapped():
            await self._redis.ping()

    async def close(self) -> None:
        """Give back the connections."""
        await self._redis.aclose()

    def _task(self, tenant: str, task_id: str) -> str:
        return f"{self._namespace}:task:{tenant}:{task_id}"

    def _tasks(self, tenant: str) -> str:
        return f"{self._namespace}:tasks:{tenant}"

    def _names(self, tenant: str) -> str:
        return f"{self._namespace}:names:{tenant}"

    def _recipe(self, key: str) -> str:
        return f"{self._namespace}:recipe:{key}"


def _task(row: Sequence[bytes | str | None]) -> Task | None:
    record, prompt = row
    if record is None or prompt is None:
        return None
    try:
        return Task(**json.loads(record), prompt=_bytes(prompt).decode("utf-8"))
    except (ValidationError, TypeError, ValueError) as error:
        raise StoreUnavailable("a stored task cannot be read") from error


def _bytes(value: object) -> bytes:
    """Narrow what redis-py types as `bytes | str`: this client never decodes replies."""
    if not isinstance(value, bytes):
        raise StoreUnavailable("the task store gave an unexpected reply")
    return value


@asynccontextmanager
async def _mapped() -> AsyncIterator[None]:
    """The one place where Redis' errors become ours."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreUnavailable("the task store does not answer", retry_after=1.0) from error
