"""Resealing: what is sealed under older versions of the encryption key goes over to the newest.

Redis tells what is not sealed as it would be now, and takes the new form only in place of the old
one that it was made from: a change or a delete in between is not undone.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import redis.asyncio as redis

from loragen.errors import SealBroken, SealUnknown
from loragen.redis_client import as_bytes, mapped
from loragen.seal import Seal
from loragen.task_codec import SEALED, place

_SCANNED: Final = 1_000
_IS_IMPLICIT: Final = 0
"""Times to live from here on are of implicit tasks; others have none, -1."""

_STALE_FIELDS: Final = """
local head, found = ARGV[1], {redis.call('TTL', KEYS[1])}
for i = 2, #ARGV do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  if value and value ~= '' and string.sub(value, 1, #head) ~= head then
    found[#found + 1] = ARGV[i]
    found[#found + 1] = value
  end
end
return found
"""
_REPLACE_FIELD: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
_REPLACE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""


@dataclass(frozen=True, slots=True)
class Resealed:
    """What came of a task: how many values are sealed anew, and how many cannot be opened."""

    values: int = 0
    unreadable: int = 0
    is_implicit: bool = False


class Resealing:
    """Reseals one task, or one recipe, after another."""

    def __init__(self, client: redis.Redis, *, namespace: str, seal: Seal) -> None:
        self._redis = client
        self._tasks = f"{namespace}:task:"
        self._seal = seal
        self._stale_fields = client.register_script(_STALE_FIELDS)
        self._replace_field = client.register_script(_REPLACE_FIELD)
        self._replace = client.register_script(_REPLACE)

    async def tasks(self) -> AsyncIterator[tuple[str, str]]:
        """Yield tenant and id of every task that is there all along, some of them twice."""
        cursor = None
        while cursor != 0:
            async with mapped():
                cursor, keys = await self._redis.scan(
                    cursor or 0, f"{self._tasks}*", count=_SCANNED
                )
            for key in keys:
                tenant, _, task_id = as_bytes(key).decode()[len(self._tasks) :].partition(":")
                yield tenant, task_id

    async def task(self, tenant: str, key: str) -> Resealed:
        """Reseal the fields of a task under its Redis key."""
        async with mapped():
            ttl, *found = await self._stale_fields(keys=[key], args=[self._seal.head, *SEALED])
        values = unreadable = 0
        for field, old in zip(found[::2], found[1::2], strict=True):
            where = place(key, field.decode())
            try:
                new = self._seal.close(tenant, where, self._seal.open(tenant, where, old))
            except (SealBroken, SealUnknown):
                unreadable += 1
                continue
            async with mapped():
                values += await self._replace_field(keys=[key], args=[field, old, new])
        return Resealed(values, unreadable, is_implicit=ttl >= _IS_IMPLICIT)

    async def recipe(self, tenant: str, key: str) -> bool:
        """Reseal the recipe under a Redis key; whether that was needed and done."""
        async with mapped():
            old = await self._redis.get(key)
        if old is None or self._seal.is_current(as_bytes(old)):
            return False
        try:
            new = self._seal.close(tenant, key, self._seal.open(tenant, key, as_bytes(old)))
        except (SealBroken, SealUnknown):  # whoever asks for it has it compiled again
            return False
        async with mapped():
            return bool(await self._replace(keys=[key], args=[old, new]))
