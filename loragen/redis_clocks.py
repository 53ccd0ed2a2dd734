"""Clocks in Redis.

    {ns}:clock:{tenant}:{model}    hash     at -> the clock, mean -> tokens its requests generate
    {ns}:clock-tags:model={model}  zset     request -> its tag
    {ns}:clock-ends:model={model}  zset     request -> until when it counts, in Redis' seconds
    {ns}:clock-now:model={model}   string   the virtual time so far

All end by themselves. No tenant's id holds "=", so that erasure takes no model for a tenant.
"""

from collections.abc import Collection
from itertools import groupby
from operator import attrgetter
from typing import Final

import redis.asyncio as redis

from loragen.clocks import EXPECTED_TOKENS, GENERATED_WEIGHT, MEMORY, Place, Work
from loragen.limits import LEASE_SECONDS
from loragen.redis_client import mapped

KEEP_SECONDS: Final = 3_600
"""A clock is forgotten after this long without requests; its tenant begins at the virtual time."""

_START: Final = """
local clock, tags, ends, now = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local request, lease, keep = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local prompt, most, weight = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local second = tonumber(time[1]) + tonumber(time[2]) / 1e6
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', second, 'LIMIT', 0, 100)) do
  redis.call('ZREM', ends, gone)
  redis.call('ZREM', tags, gone)
end
local least = redis.call('ZRANGE', tags, 0, 0, 'WITHSCORES')
local virtual = math.max(tonumber(redis.call('GET', now) or 0), tonumber(least[2] or 0))
local tag = math.max(virtual, tonumber(redis.call('HGET', clock, 'at') or 0))
local expected = tonumber(redis.call('HGET', clock, 'mean') or ARGV[7])
local charged = math.floor(prompt + weight * math.min(most, expected))
redis.call('HSET', clock, 'at', tag + charged)
redis.call('ZADD', tags, tag, request)
redis.call('ZADD', ends, second + lease, request)
redis.call('SET', now, virtual)
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, keep) end
return {tag, charged, virtual}
"""
_SETTLE: Final = """
local clock, tags, ends, now = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local request, change, generated = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREM', ends, request)
if redis.call('ZREM', tags, request) == 0 then return 0 end
local at = tonumber(redis.call('HGET', clock, 'at') or false)
if not at then return 0 end
at = math.max(0, at + change)
redis.call('HSET', clock, 'at', at)
if generated > 0 then
  local mean = tonumber(redis.call('HGET', clock, 'mean') or generated)
  mean = mean + (generated - mean) / tonumber(ARGV[4])
  redis.call('HSET', clock, 'mean', string.format('%.3f', mean))
end
-- Nobody is left: whoever comes next is the equal of who left last.
if redis.call('EXISTS', tags) == 0 then
  local virtual = math.max(at, tonumber(redis.call('GET', now) or 0))
  redis.call('SET', now, virtual, 'EX', ARGV[5])
end
return 1
"""
_RENEW: Final = """
local time = redis.call('TIME')
local until_time = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[1])
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', until_time, ARGV[i]) end
"""


class RedisClocks:
    """Clocks on Redis 7 or Valkey."""

    def __init__(
        self, client: redis.Redis, *, namespace: str, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._namespace = namespace
        self._lease = lease_seconds
        self._start = client.register_script(_START)
        self._settle = client.register_script(_SETTLE)
        self._renew = client.register_script(_RENEW)

    async def start(self, tenant: str, model: str, request: str, work: Work) -> Place:
        """Give a request its place and charge its tenant what it will probably cost."""
        asked = (work.prompt_tokens, work.generated_tokens, GENERATED_WEIGHT, EXPECTED_TOKENS)
        async with mapped():
            tag, charged, now = await self._start(
                keys=self._keys(tenant, model),
                args=[request, self._lease, KEEP_SECONDS, *asked],
            )
        return Place(tenant, model, request, int(tag), int(charged), int(now))

    async def settle(self, place: Place, work: Work | None) -> None:
        """End a request and charge what it cost; where nobody knows, the guess stays."""
        change = 0 if work is None else work.cost - place.charged
        generated = 0 if work is None else work.generated_tokens
        async with mapped():
            await self._settle(
                keys=self._keys(place.tenant, place.model),
                args=[place.request, change, generated, MEMORY, KEEP_SECONDS],
            )

    async def renew(self, places: Collection[Place]) -> None:
        """Say that requests still run or wait."""
        by_model = attrgetter("model")
        for model, those in groupby(sorted(places, key=by_model), by_model):
            requests = [place.request for place in those]
            async with mapped():
                await self._renew(
                    keys=[self._key("clock-ends", model)], args=[self._lease, *requests]
                )

    def _keys(self, tenant: str, model: str) -> list[str]:
        shared = [self._key(what, model) for what in ("clock-tags", "clock-ends", "clock-now")]
        return [f"{self._namespace}:clock:{tenant}:{model}", *shared]

    def _key(self, what: str, model: str) -> str:
        return f"{self._namespace}:{what}:model={model}"
