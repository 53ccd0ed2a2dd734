"""Conversations: which ones run in prompt mode, so that none is switched half-way.

    {ns}:conversation:{key}   string   empty, with a time to live

A conversation is known by its tenant and a keyed hash of how it began
(`TenantKeys.conversation_keys`), joined by a colon.
"""

from collections.abc import Sequence
from typing import Protocol

import redis.asyncio as redis

from loragen.redis_client import mapped


class Conversations(Protocol):
    """Conversations in prompt mode. Every method raises StoreUnavailable."""

    async def remember(self, keys: Sequence[str]) -> None:
        """Remember conversations for a time to live from here."""

    async def is_remembered(self, keys: Sequence[str]) -> bool:
        """Whether one of the keys was remembered less than a time to live ago."""


class RedisConversations:
    """Conversations in Redis 7 or Valkey, shared by all gateways."""

    def __init__(self, client: redis.Redis, *, namespace: str, ttl_seconds: int) -> None:
        self._redis = client
        self._namespace = namespace
        self._ttl = ttl_seconds

    async def remember(self, keys: Sequence[str]) -> None:
        """Remember conversations for a time to live from here."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.set(self._key(key), "", ex=self._ttl)
        async with mapped():
            await pipeline.execute()

    async def is_remembered(self, keys: Sequence[str]) -> bool:
        """Whether one of the keys was remembered less than a time to live ago."""
        async with mapped():
            return bool(await self._redis.exists(*(self._key(key) for key in keys)))

    def _key(self, key: str) -> str:
        return f"{self._namespace}:conversation:{key}"
