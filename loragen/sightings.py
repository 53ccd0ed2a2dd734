"""Sightings: which prompts come again and are worth a compile, and how many a tenant may have.

    {ns}:sighting:{tenant}:{task_id}   hash   count, tokens; until unseen for a window
    {ns}:budget:{tenant}               set    digests of the tasks compiled in this period

A prompt is known by its task id, a keyed hash, never by its text. Every key has a time to live, so
prompts that never come again cost a hundred bytes for a window.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Protocol

import redis.asyncio as redis

from loragen.redis_client import mapped

_SIGHT: Final = """
local count = redis.call('HINCRBY', KEYS[1], 'count', 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return {count, redis.call('HGET', KEYS[1], 'tokens')}
"""
_MEASURE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'tokens', ARGV[1]) end
"""
_SPEND: Final = """
local member, limit, seconds = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if redis.call('SISMEMBER', KEYS[1], member) == 1 then return 1 end
local spent = redis.call('SCARD', KEYS[1])
if spent >= limit then return 0 end
redis.call('SADD', KEYS[1], member)
if spent == 0 then redis.call('EXPIRE', KEYS[1], seconds) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Sighting:
    """How often a prompt was seen, this time included, and its length once it was counted."""

    count: int
    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class Budget:
    """So many tasks per tenant are compiled within so long a period."""

    tasks: int
    seconds: int


class Sightings(Protocol):
    """What is seen of prompts without a task. Every method raises StoreUnavailable."""

    async def sight(self, tenant: str, task_id: str) -> Sighting:
        """Count a request with the prompt of a task that does not exist."""

    async def measure(self, tenant: str, task_id: str, prompt_tokens: int) -> None:
        """Remember the length of a prompt as long as its sightings."""

    async def spend(self, tenant: str, task_id: str) -> bool:
        """Take a compile from the budget, once per task and period; False if none is left."""

    async def forget(self, tenant: str, task_id: str) -> None:
        """Forget the sightings of a prompt."""


class RedisSightings:
    """Sightings in Redis 7 or Valkey, shared by all gateways."""

    def __init__(
        self, client: redis.Redis, *, namespace: str, window_seconds: int, budget: Budget
    ) -> None:
        self._redis = client
        self._namespace = namespace
        self._window = window_seconds
        self._budget = budget
        self._sight = client.register_script(_SIGHT)
        self._measure = client.register_script(_MEASURE)
        self._spend = client.register_script(_SPEND)

    async def sight(self, tenant: str, task_id: str) -> Sighting:
        """Count a request with the prompt of a task that does not exist."""
        async with mapped():
            count, tokens = await self._sight(
                keys=[self._sighting(tenant, task_id)], args=[self._window]
            )
        return Sighting(int(count), None if tokens is None else int(tokens))

    async def measure(self, tenant: str, task_id: str, prompt_tokens: int) -> None:
        """Remember the length of a prompt as long as its sightings."""
        async with mapped():
            await self._measure(keys=[self._sighting(tenant, task_id)], args=[prompt_tokens])

    async def spend(self, tenant: str, task_id: str) -> bool:
        """Take a compile from the budget, once per task and period; False if none is left."""
        # A digest, because a deleted task's id is to be found nowhere.
        member = hashlib.sha256(task_id.encode()).hexdigest()[:32]
        async with mapped():
            granted = await self._spend(
                keys=[f"{self._namespace}:budget:{tenant}"],
                args=[member, self._budget.tasks, self._budget.seconds],
            )
        return bool(granted)

    async def forget(self, tenant: str, task_id: str) -> None:
        """Forget the sightings of a prompt."""
        async with mapped():
            await self._redis.delete(self._sighting(tenant, task_id))

    def _sighting(self, tenant: str, task_id: str) -> str:
        return f"{self._namespace}:sighting:{tenant}:{task_id}"
