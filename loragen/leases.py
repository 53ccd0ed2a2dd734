"""Leases: of all gateways one does a piece of work, and its death frees the others to do it.

    {ns}:lease:{name}      string   token of the holder, with a time to live

A lease is taken by SET NX PX with a random token, kept alive while its holder works, and given
back by comparing the token and deleting (https://redis.io/docs/latest/commands/set, "Patterns").
It saves work and guards nothing: where two hold one after a pause of Redis, both do the work and
the first write wins.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import redis.asyncio as redis

from loragen.background import end
from loragen.errors import StoreUnavailable
from loragen.redis_client import mapped

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 5.0
"""A dead holder's lease ends after this long at the latest."""
RENEWALS: Final = 3
"""Within the time to live; two may fail before the lease is lost."""
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 0.25

_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Leases(Protocol):
    """Locks with a time to live. Every method raises StoreUnavailable when it cannot answer."""

    async def acquire(self, name: str, token: str, *, seconds: float) -> bool:
        """Take the lease; False if another token holds it."""

    async def renew(self, name: str, token: str, *, seconds: float) -> bool:
        """Prolong the lease; False if this token does not hold it any more."""

    async def release(self, name: str, token: str) -> bool:
        """Give the lease back; False if this token does not hold it any more."""

    async def held(self, names: Collection[str]) -> set[str]:
        """Return those of the leases that somebody holds."""


class RedisLeases:
    """Leases on Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis = client
        self._namespace = namespace
        self._renew = client.register_script(_RENEW)
        self._release = client.register_script(_RELEASE)

    async def acquire(self, name: str, token: str, *, seconds: float) -> bool:
        """Take the lease; False if another token holds it."""
        async with mapped():
            taken = await self._redis.set(self._key(name), token, nx=True, px=_millis(seconds))
        return bool(taken)

    async def renew(self, name: str, token: str, *, seconds: float) -> bool:
        """Prolong the lease; False if this token does not hold it any more."""
        async with mapped():
            held = await self._renew(keys=[self._key(name)], args=[token, _millis(seconds)])
        return bool(held)

    async def release(self, name: str, token: str) -> bool:
        """Give the lease back; False if this token does not hold it any more."""
        async with mapped():
            held = await self._release(keys=[self._key(name)], args=[token])
        return bool(held)

    async def held(self, names: Collection[str]) -> set[str]:
        """Return those of the leases that somebody holds."""
        if not names:
            return set()
        async with mapped():
            tokens = await self._redis.mget([self._key(name) for name in names])
        return {name for name, token in zip(names, tokens, strict=True) if token is not None}

    def _key(self, name: str) -> str:
        return f"{self._namespace}:lease:{name}"


@asynccontextmanager
async def hold(leases: Leases, name: str, *, seconds: float = LEASE_SECONDS) -> AsyncIterator[None]:
    """Wait for a lease and hold it for the length of the block.

    Raises:
        StoreUnavailable: Redis does not answer while the lease is asked for.
    """
    token = secrets.token_hex(16)
    try:
        await _take(leases, name, token, seconds)
    except asyncio.CancelledError:
        with suppress(StoreUnavailable):  # it may be taken, and only the reply be missing
            await leases.release(name, token)
        raise
    async with keep(leases, name, token, seconds=seconds):
        yield


@asynccontextmanager
async def keep(
    leases: Leases, name: str, token: str, *, seconds: float = LEASE_SECONDS
) -> AsyncIterator[None]:
    """Hold a lease that `token` has taken for the length of the block."""
    renewing = asyncio.create_task(_renew_forever(leases, name, token, seconds))
    try:
        yield
    finally:
        await end([renewing])
        with suppress(StoreUnavailable):  # it ends by itself
            await leases.release(name, token)


async def _take(leases: Leases, name: str, token: str, seconds: float) -> None:
    pause = _FIRST_PAUSE_SECONDS
    while not await leases.acquire(name, token, seconds=seconds):
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _renew_forever(leases: Leases, name: str, token: str, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds / RENEWALS)
        try:
            if not await leases.renew(name, token, seconds=seconds):
                logger.warning("lease lost", extra={"lease": name})
                return
        except StoreUnavailable:
            continue


def _millis(seconds: float) -> int:
    return max(1, round(seconds * 1_000))
