"""Usage: what tenants were served, by day, edge model, mode and task.

    {ns}:usage:{tenant}:{day}    hash    JSON [model, mode, task, what] -> number
    {ns}:usage-batch:{id}        string  empty, for an hour: this batch was added

The hashes have no time to live: a Redis that is full drops what has one.

A batch is added once, however often a gateway sends it for want of an answer. The id of a task that
does not exist is written nowhere: its numbers stay, under `DELETED`.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Protocol, Self

import redis.asyncio as redis

from loragen.redis_client import as_bytes, mapped
from loragen.redis_store import task_key
from loragen.tenants import OPEN_TENANT

DELETED: Final = "deleted"
"""Stands for the id of a task that was deleted or has expired."""
MODES: Final = ("compiled", "hybrid", "prompt", "base")
_WHATS: Final = ("requests", "prompt_tokens", "saved_prompt_tokens", "generated_tokens")
_BATCH_SECONDS: Final = 3_600
_DROPPED_DAYS: Final = 60
"""Days before those that are kept: in so many some gateway has dropped them."""
_DROPPED_AT_ONCE: Final = 1_000

_ADD: Final = """
if not redis.call('SET', KEYS[1], '', 'NX', 'EX', ARGV[1]) then return 0 end
local open, at = ARGV[2], 3
for i = 3, #KEYS, 2 do
  local usage, task = KEYS[i], KEYS[i + 1]
  local tenant, fields = ARGV[at], cjson.decode(ARGV[at + 1])
  at = at + 2
  if tenant == open or redis.call('HEXISTS', KEYS[2], tenant) == 1 then
    local is_there = task == '' or redis.call('EXISTS', task) == 1
    for _, each in ipairs(fields) do
      redis.call('HINCRBY', usage, is_there and each[1] or each[2], each[3])
    end
    redis.call('PERSIST', usage)  -- an older version gave it a time to live
  end
end
return 1
"""
_FORGET_TASK: Final = """
for _, usage in ipairs(KEYS) do
  for i = 1, #ARGV, 2 do
    local number = redis.call('HGET', usage, ARGV[i])
    if number then
      redis.call('HDEL', usage, ARGV[i])
      redis.call('HINCRBY', usage, ARGV[i + 1], number)
    end
  end
end
"""


@dataclass(frozen=True, slots=True)
class UsageKey:
    """What numbers are kept by; a day is one of UTC."""

    tenant: str
    day: date
    model: str
    mode: str
    task_id: str | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """How many requests, and the tokens of their prompts, of what recipes saved, of answers."""

    requests: int = 0
    prompt_tokens: int = 0
    saved_prompt_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: Self) -> "Numbers":
        """Return the sum."""
        return Numbers(*(getattr(self, what) + getattr(other, what) for what in _WHATS))

    def shown(self) -> dict[str, int]:
        """Return the numbers by name."""
        return {what: getattr(self, what) for what in _WHATS}


class Usage(Protocol):
    """Where usage is kept. Every method raises StoreUnavailable."""

    async def add(self, batch_id: str, numbers: Mapping[UsageKey, Numbers]) -> None:
        """Add numbers, unless a batch of that id was added; a deleted tenant's are dropped."""

    async def read(self, tenant: str, *, since: date, until: date) -> dict[UsageKey, Numbers]:
        """Return what a tenant was served from one day to another, both included."""

    async def forget_task(self, tenant: str, task_id: str, *, model: str, today: date) -> None:
        """Keep a task's numbers under `DELETED`."""

    async def drop_old(self, today: date) -> None:
        """Drop the days that are kept no longer, of all tenants."""


class RedisUsage:
    """Usage in Redis 7 or Valkey, kept for so many days."""

    def __init__(self, client: redis.Redis, *, namespace: str, keep_days: int) -> None:
        self._redis = client
        self._namespace = namespace
        self._keep_days = keep_days
        self._add = client.register_script(_ADD)
        self._forget = client.register_script(_FORGET_TASK)

    async def add(self, batch_id: str, numbers: Mapping[UsageKey, Numbers]) -> None:
        """Add numbers, unless a batch of that id was added; a deleted tenant's are dropped."""
        keys = [f"{self._namespace}:usage-batch:{batch_id}", f"{self._namespace}:tenants"]
        args: list[Any] = [_BATCH_SECONDS, OPEN_TENANT]
        for key, added in numbers.items():
            task = key.task_id
            own = task_key(self._namespace, key.tenant, task) if task is not None else ""
            keys += [self._key(key.tenant, key.day), own]
            fields = [
                (_field(key, task, what), _field(key, DELETED, what), number)
                for what, number in added.shown().items()
                if number
            ]
            args += [key.tenant, json.dumps(fields)]
        async with mapped():
            await self._add(keys=keys, args=args)

    async def read(self, tenant: str, *, since: date, until: date) -> dict[UsageKey, Numbers]:
        """Return what a tenant was served from one day to another, both included."""
        days = _days(since, until)
        pipeline = self._redis.pipeline(transaction=False)
        for day in days:
            pipeline.hgetall(self._key(tenant, day))
        async with mapped():
            rows = await pipeline.execute()
        found: dict[UsageKey, Numbers] = {}
        for day, row in zip(days, rows, strict=True):
            await asyncio.sleep(0)  # a year of many tasks is read beside what others stream
            for field, number in row.items():
                model, mode, task, what = json.loads(as_bytes(field))
                key = UsageKey(tenant, day, model, mode, task)
                found[key] = found.get(key, Numbers()) + Numbers(**{what: int(number)})
        return found

    async def forget_task(self, tenant: str, task_id: str, *, model: str, today: date) -> None:
        """Keep a task's numbers under `DELETED`."""
        days = _days(today - timedelta(days=self._keep_days), today + timedelta(days=1))
        fields = [
            _field(UsageKey(tenant, today, model, mode, None), task, what)
            for mode in MODES
            for what in _WHATS
            for task in (task_id, DELETED)
        ]
        async with mapped():
            await self._forget(keys=[self._key(tenant, day) for day in days], args=fields)

    async def drop_old(self, today: date) -> None:
        """Drop the days that are kept no longer, of all tenants."""
        first = today - timedelta(days=self._keep_days + _DROPPED_DAYS)
        days = _days(first, today - timedelta(days=self._keep_days + 1))
        async with mapped():
            known = await self._redis.hkeys(f"{self._namespace}:tenants")
            tenants = [OPEN_TENANT, *(as_bytes(each).decode() for each in known)]
            keys = [self._key(tenant, day) for tenant in tenants for day in days]
            for start in range(0, len(keys), _DROPPED_AT_ONCE):
                await self._redis.unlink(*keys[start : start + _DROPPED_AT_ONCE])

    def _key(self, tenant: str, day: date) -> str:
        return f"{self._namespace}:usage:{tenant}:{day.isoformat()}"


def _field(key: UsageKey, task: str | None, what: str) -> str:
    return json.dumps([key.model, key.mode, task, what])


def _days(since: date, until: date) -> Sequence[date]:
    return [since + timedelta(days=number) for number in range((until - since).days + 1)]
