"""Upgrades: how far the tasks of an edge model are compiled for the pool that is coming.

    {ns}:upgrade-progress     hash    edge model -> JSON of its progress

Only told to operators and asked before a switch; what is missing is read from the tasks themselves.
"""

import json
from typing import Protocol

import redis.asyncio as redis
from pydantic import BaseModel, ConfigDict, ValidationError

from loragen.redis_client import as_bytes, mapped
from loragen.wire import Digest


class Progress(BaseModel):
    """What one pass over the tasks of an edge model has found, and done since.

    Requests are those of the last days. A task is ready if the pool answers it no worse than the
    one that serves: by a recipe that is not withheld, or the other has none either.
    """

    model_config = ConfigDict(frozen=True)

    pool_id: Digest
    tasks: int = 0
    ready_tasks: int = 0
    failed_tasks: int = 0
    """Those that the generator could not compile in this pass; the next one tries again."""
    requests: int = 0
    ready_requests: int = 0
    updated_at: int = 0

    @property
    def ready_share(self) -> float:
        """The share of the requests whose tasks are ready; without requests, of the tasks."""
        if self.requests:
            return self.ready_requests / self.requests
        return self.ready_tasks / self.tasks if self.tasks else 1.0


class UpgradeProgress(Protocol):
    """Where progress is kept. Every method raises StoreUnavailable."""

    async def read(self, model: str) -> Progress | None:
        """Return the latest progress of an edge model; None where there is none."""

    async def write(self, model: str, progress: Progress) -> None:
        """Keep the progress of an edge model in place of an earlier one."""

    async def clear(self, model: str) -> None:
        """Forget the progress of an edge model."""


class RedisUpgradeProgress:
    """Progress in Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis = client
        self._key = f"{namespace}:upgrade-progress"

    async def read(self, model: str) -> Progress | None:
        """Return the latest progress of an edge model; None where there is none."""
        async with mapped():
            text = await self._redis.hget(self._key, model)
        try:
            return None if text is None else Progress.model_validate_json(as_bytes(text))
        except ValidationError:  # of another version: the next pass writes it anew
            return None

    async def write(self, model: str, progress: Progress) -> None:
        """Keep the progress of an edge model in place of an earlier one."""
        async with mapped():
            await self._redis.hset(self._key, model, json.dumps(progress.model_dump()))

    async def clear(self, model: str) -> None:
        """Forget the progress of an edge model."""
        async with mapped():
            await self._redis.hdel(self._key, model)
