"""Erasure: everything that a tenant has in Redis goes, whatever put it there.

Every key of a tenant reads `{ns}:{kind}:{tenant}`, a lease `{ns}:lease:{kind}:{tenant}`, with or
without more behind it. That is what is looked for, so nothing has to be told of a new kind. API
keys and the list of them are deleted with the tenant's record (`redis_tenants`): a tenant that is
made again under the same id meanwhile has others.
"""

import re
from typing import Final, Protocol

import redis.asyncio as redis

from loragen.redis_client import as_bytes, mapped

_SCANNED: Final = 1_000
"""Keys that Redis looks at in one step, between which it serves others."""


class Erasure(Protocol):
    """Deletes what tenants have."""

    async def erase(self, tenant: str) -> int:
        """Delete all that is a tenant's but its record and its keys; return how many keys it was.

        Raises:
            StoreUnavailable: Redis does not answer; erasing again goes on.
        """


class RedisErasure:
    """Erasure on Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis = client
        self._namespace = namespace

    async def erase(self, tenant: str) -> int:
        """Delete all that is a tenant's but its record and its keys; return how many keys it was.

        Raises:
            StoreUnavailable: Redis does not answer; erasing again goes on.
        """
        kind = r"(?:lease:[a-z-]+|(?!lease:|keys?:)[a-z-]+)"
        own = re.compile(rf"{re.escape(self._namespace)}:{kind}:{re.escape(tenant)}(?::.*)?", re.S)
        pattern = f"{self._namespace}:*:{tenant}*"
        erased, cursor = 0, None
        async with mapped():
            while cursor != 0:
                cursor, keys = await self._redis.scan(cursor or 0, pattern, count=_SCANNED)
                found = [key for key in keys if own.fullmatch(as_bytes(key).decode("latin-1"))]
                if found:
                    erased += await self._redis.unlink(*found)
        return erased
