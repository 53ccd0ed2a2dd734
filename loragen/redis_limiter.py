"""Limiter in Redis.

    {ns}:requests:{tenant}   hash   second -> requests taken in it
    {ns}:tokens:{tenant}     hash   second -> tokens
    {ns}:compiles:{tenant}   hash   second -> compiles
    {ns}:running:{tenant}    zset   lease -> until when it counts, in Redis' seconds

All end by themselves a little after they stop to matter, so a gateway that is killed leaks none.
"""

from typing import Final

import redis.asyncio as redis

from loragen import limit_scripts
from loragen.limits import (
    LEASE_SECONDS,
    WINDOW_SECONDS,
    Admission,
    Level,
    Limit,
    Limits,
    Taken,
    Window,
)
from loragen.redis_client import mapped

_NONE: Final = b""


class RedisLimiter:
    """Limiter on Redis 7 or Valkey; the times are in seconds."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        window_seconds: int = WINDOW_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._redis = client
        self._namespace = namespace
        self._window = window_seconds
        self._lease = lease_seconds
        self._admit = client.register_script(limit_scripts.ADMIT)
        self._renew = client.register_script(limit_scripts.RENEW)
        self._take = client.register_script(limit_scripts.TAKE)
        self._settle = client.register_script(limit_scripts.SETTLE)

    async def admit(self, tenant: str, limits: Limits, lease: str) -> Admission:
        """Count a request that comes, unless a limit refuses it, and hold a lease while it runs."""
        asked = (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)
        keys = [self._key(what, tenant) for what in ("requests", "tokens", "running")]
        async with mapped():
            reply = await self._admit(
                keys=keys,
                args=[
                    lease,
                    self._lease,
                    self._window,
                    *("" if limit is None else limit for limit in asked),
                ],
            )
        refused, wait, *levels = reply
        return Admission(
            requests=_level(levels[0], levels[1]),
            tokens=_level(levels[2], levels[3]),
            refused_by=_refused(refused),
            retry_seconds=float(wait),
        )

    async def renew(self, tenant: str, leases: list[str]) -> None:
        """Say that requests still run; one that has ended stays so."""
        async with mapped():
            await self._renew(keys=[self._key("running", tenant)], args=[self._lease, *leases])

    async def leave(self, tenant: str, lease: str) -> None:
        """Say that a request has ended; one that is not running has."""
        async with mapped():
            await self._redis.zrem(self._key("running", tenant), lease)

    async def take(self, tenant: str, window: Window, *, limit: int, amount: int = 1) -> Taken:
        """Take from a window as much as is asked for, or nothing."""
        async with mapped():
            remaining, reset, cell, wait = await self._take(
                keys=[self._key(window, tenant)], args=[limit, amount, self._window]
            )
        level = Level(int(remaining), float(reset))
        return Taken(level, None if cell == _NONE else int(cell), float(wait))

    async def settle(self, tenant: str, window: Window, *, cell: int, change: int) -> None:
        """Change what was taken by what it turned out to be; a cell that has ended stays so."""
        async with mapped():
            await self._settle(keys=[self._key(window, tenant)], args=[cell, change])

    def _key(self, what: str, tenant: str) -> str:
        return f"{self._namespace}:{what}:{tenant}"


def _level(remaining: bytes | int, reset: bytes) -> Level | None:
    return None if remaining == _NONE else Level(int(remaining), float(reset))


def _refused(by: bytes) -> Limit | None:
    match by:
        case b"requests":
            return "requests"
        case b"concurrency":
            return "concurrency"
        case _:
            return None
