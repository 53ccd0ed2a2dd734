"""Store: tasks (durable) and recipes (evictable) in Redis.

    {ns}:task:{tenant}:{task_id}   hash    record = JSON, prompt = text, tools = JSON
    {ns}:tasks:{tenant}            zset    task ids by time of creation
    {ns}:names:{tenant}            hash    name -> task id
    {ns}:recipe:{recipe key}       string  recipe bytes, with a time to live

Only recipes carry a time to live, so `maxmemory-policy volatile-lru` evicts recipes and never a
task; an evicted recipe is compiled again from its task.
"""

import json
from collections.abc import Sequence
from typing import Final, Protocol, Self

import redis.asyncio as redis
from pydantic import ValidationError

from loragen.errors import Conflict, StoreUnavailable
from loragen.redis_client import as_bytes, connect, mapped
from loragen.task import Task
from loragen.tools import dump_tools, load_tools

_FIELDS: Final = ("record", "prompt", "tools")
_CREATE: Final = """
local id, record, prompt, created_at, name, tools = unpack(ARGV)
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if name ~= '' then
  local holder = redis.call('HGET', KEYS[3], name)
  if holder and holder ~= id then return holder end
  redis.call('HSET', KEYS[3], name, id)
end
redis.call('HSET', KEYS[1], 'record', record, 'prompt', prompt)
if tools ~= '' then redis.call('HSET', KEYS[1], 'tools', tools) end
redis.call('ZADD', KEYS[2], created_at, id)
return 1
"""
_UPDATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[1])
return 1
"""
_DELETE: Final = """
local id = ARGV[1]
local readable, task = pcall(cjson.decode, redis.call('HGET', KEYS[1], 'record') or 'null')
local name = readable and type(task) == 'table' and task['name']
if type(name) == 'string' and redis.call('HGET', KEYS[3], name) == id then
  redis.call('HDEL', KEYS[3], name)
end
redis.call('ZREM', KEYS[2], id)
return redis.call('DEL', KEYS[1])
"""


class Store(Protocol):
    """Where tasks and recipes live. Every method raises StoreUnavailable when it cannot answer."""

    async def create(self, task: Task) -> bool:
        """Write a new task with its name; False, and nothing written, if it exists.

        Raises:
            Conflict: the name stands for another task; nothing is written.
        """

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt and tools."""

    async def update(self, task: Task) -> bool:
        """Replace the record of an existing task; False if it was deleted."""

    async def delete(self, tenant: str, task_id: str) -> bool:
        """Delete a task and its name; False if there was none."""

    async def page(self, tenant: str, *, limit: int) -> list[Task]:
        """Return the tenant's newest tasks, newest first."""

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
        self._delete = client.register_script(_DELETE)

    @classmethod
    def connect(
        cls, url: str, *, namespace: str, recipe_ttl_seconds: int, timeout_seconds: float
    ) -> Self:
        """Return a store for `url`; connections open at first use.

        Raises:
            ConfigError: the URL is not one of Redis.
        """
        client = connect(url, timeout_seconds=timeout_seconds)
        return cls(client, namespace=namespace, recipe_ttl_seconds=recipe_ttl_seconds)

    async def create(self, task: Task) -> bool:
        """Write a new task with its name; False, and nothing written, if it exists.

        Raises:
            Conflict: the name stands for another task; nothing is written.
        """
        keys = [*self._task_keys(task.tenant, task.id), self._names(task.tenant)]
        record = task.model_dump_json(exclude_defaults=True)
        async with mapped():
            written = await self._create(
                keys=keys,
                args=[
                    task.id,
                    record,
                    task.prompt,
                    task.created_at,
                    task.name or "",
                    dump_tools(task.tools) if task.tools else "",
                ],
            )
        if isinstance(written, bytes):
            raise Conflict(f"the name {task.name!r} is task {written.decode()!r}", param="name")
        return bool(written)

    async def get(self, tenant: str, task_id: str) -> Task | None:
        """Return a task with its prompt and tools."""
        async with mapped():
            row = await self._redis.hmget(self._task(tenant, task_id), _FIELDS)
        return _task(row)

    async def update(self, task: Task) -> bool:
        """Replace the record of an existing task; False if it was deleted."""
        async with mapped():
            written = await self._update(
                keys=[self._task(task.tenant, task.id)],
                args=[task.model_dump_json(exclude_defaults=True)],
            )
        return bool(written)

    async def delete(self, tenant: str, task_id: str) -> bool:
        """Delete a task and its name; False if there was none."""
        keys = [*self._task_keys(tenant, task_id), self._names(tenant)]
        async with mapped():
            deleted = await self._delete(keys=keys, args=[task_id])
        return bool(deleted)

    async def page(self, tenant: str, *, limit: int) -> list[Task]:
        """Return the tenant's newest tasks, newest first."""
        async with mapped():
            ids = await self._redis.zrange(self._tasks(tenant), 0, limit - 1, desc=True)
            pipeline = self._redis.pipeline(transaction=False)
            for task_id in ids:
                key = self._task(tenant, as_bytes(task_id).decode())
                pipeline.hmget(key, _FIELDS)
            rows = await pipeline.execute()
        return [task for row in rows if (task := _task(row)) is not None]

    async def find_name(self, tenant: str, name: str) -> str | None:
        """Return the task id a name stands for."""
        async with mapped():
            task_id = await self._redis.hget(self._names(tenant), name)
        return None if task_id is None else as_bytes(task_id).decode()

    async def names(self, tenant: str) -> dict[str, str]:
        """Return the tenant's names and their task ids."""
        async with mapped():
            pairs = await self._redis.hgetall(self._names(tenant))
        return {as_bytes(name).decode(): as_bytes(task).decode() for name, task in pairs.items()}

    async def get_recipe(self, key: str) -> bytes | None:
        """Return recipe bytes and keep them for another time to live."""
        async with mapped():
            data = await self._redis.getex(self._recipe(key), ex=self._ttl)
        return None if data is None else as_bytes(data)

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        """Store recipe bytes unless some are there; return those that are."""
        async with mapped():
            stored = await self._redis.set(self._recipe(key), data, nx=True, get=True, ex=self._ttl)
        return data if stored is None else as_bytes(stored)

    async def delete_recipe(self, key: str) -> None:
        """Forget a recipe."""
        async with mapped():
            await self._redis.delete(self._recipe(key))

    async def ping(self) -> None:
        """Return if the store answers."""
        async with mapped():
            await self._redis.ping()

    async def close(self) -> None:
        """Give back the connections."""
        await self._redis.aclose()

    def _task(self, tenant: str, task_id: str) -> str:
        return f"{self._namespace}:task:{tenant}:{task_id}"

    def _task_keys(self, tenant: str, task_id: str) -> tuple[str, str]:
        return self._task(tenant, task_id), self._tasks(tenant)

    def _tasks(self, tenant: str) -> str:
        return f"{self._namespace}:tasks:{tenant}"

    def _names(self, tenant: str) -> str:
        return f"{self._namespace}:names:{tenant}"

    def _recipe(self, key: str) -> str:
        return f"{self._namespace}:recipe:{key}"


def _task(row: Sequence[bytes | str | None]) -> Task | None:
    record, prompt, tools = row
    if record is None or prompt is None:
        return None
    try:
        return Task(
            **json.loads(record),
            prompt=as_bytes(prompt).decode("utf-8"),
            tools=load_tools(as_bytes(tools).decode("utf-8")) if tools else (),
        )
    except (ValidationError, TypeError, ValueError) as error:
        raise StoreUnavailable("a stored task cannot be read") from error
