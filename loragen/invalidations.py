"""Invalidations: what one gateway changes, all others forget at once.

    {ns}:invalidations     pub/sub channel    {"tenant", "task_id"}

In place of the id stands a name that was pointed elsewhere, or nothing, which means the tenant
itself: its keys, its limits, or that it is gone.

Redis does not keep messages: one sent while a gateway is not connected is lost to it. A follower is
told when that may have been, and the time to live of what gateways keep in memory is the safety
net, so nothing here may be the only way.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final, Protocol

import redis.asyncio as redis

from loragen.errors import StoreUnavailable
from loragen.redis_client import mapped

logger = logging.getLogger(__name__)

Forget = Callable[[str, str], None]
"""Told the tenant and the id of a task that changed, or a name."""
Missed = Callable[[], None]
"""Told that messages may have been missed."""
WHOLE_TENANT: Final = ""
"""Stands for the id of a task where the tenant itself changed."""

SILENCE_SECONDS: Final = 5.0
"""After this long without a message the connection is tried with a ping."""
RECONNECT_SECONDS: Final = 0.2


def nothing() -> None:
    """Do nothing about messages that may have been missed."""


class Invalidations(Protocol):
    """Tells all gateways that a task is not what they remember."""

    async def publish(self, tenant: str, task_id: str) -> None:
        """Tell every gateway that listens.

        Raises:
            StoreUnavailable: Redis does not answer.
        """

    async def follow(self, forget: Forget, missed: Missed = nothing) -> None:
        """Call `forget` for every message until cancelled, over lost connections too.

        `missed` is called whenever listening begins: what was sent before is not told.
        """


class RedisInvalidations:
    """Invalidations on Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis = client
        self._channel = f"{namespace}:invalidations"

    async def publish(self, tenant: str, task_id: str) -> None:
        """Tell every gateway that listens.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        message = json.dumps({"tenant": tenant, "task_id": task_id})
        async with mapped():
            await self._redis.publish(self._channel, message)

    async def follow(self, forget: Forget, missed: Missed = nothing) -> None:
        """Call `forget` for every message until cancelled, over lost connections too."""
        while True:
            try:
                await self._listen(forget, missed)
            except StoreUnavailable:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, forget: Forget, missed: Missed) -> None:
        async with mapped(), self._redis.pubsub() as listener:
            await listener.subscribe(self._channel)
            is_asked = False
            while True:
                message = await listener.get_message(timeout=SILENCE_SECONDS)
                if message is None and is_asked:
                    raise StoreUnavailable("the task store does not answer", retry_after=1.0)
                is_asked = message is None
                if message is None:
                    await listener.ping()
                elif message["type"] == "subscribe":
                    missed()
                elif message["type"] == "message":
                    _tell(message["data"], forget)


def _tell(data: bytes, forget: Forget) -> None:
    try:
        fields = json.loads(data)
        tenant, task_id = str(fields["tenant"]), str(fields["task_id"])
    except (ValueError, KeyError, TypeError):
        logger.warning("invalidation cannot be read")
        return
    forget(tenant, task_id)
