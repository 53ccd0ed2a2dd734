"""Redis client: how any part of the core reaches Redis, and the one place where its errors end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from loragen.errors import ConfigError, StoreUnavailable

_CONNECTIONS: Final = 64
"""Of one gateway at most; more calls at once wait for one, within the deadline of a call."""


def connect(url: str, *, timeout_seconds: float) -> redis.Redis:
    """Return a client for `url`; connections open at first use.

    Raises:
        ConfigError: the URL is not one of Redis.
    """
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # One more try, at once, for a connection that went stale; the driver's default
            # sleeps for seconds while requests wait. No time-out is tried again: it is a deadline.
            retry=Retry(NoBackoff(), 1, (LostConnection,)),
            # With them, which only Redis' own clusters send, the driver would hand out connections
            # that hold replies nobody has read: the next call would read another's.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
    except ValueError as error:
        raise ConfigError("redis_url must be redis://, rediss:// or unix://") from error
    return redis.Redis.from_pool(pool)


def as_bytes(value: object) -> bytes:
    """Narrow what redis-py types as `bytes | str`: this client never decodes replies."""
    if not isinstance(value, bytes):
        raise StoreUnavailable("the task store gave an unexpected reply")
    return value


@asynccontextmanager
async def mapped() -> AsyncIterator[None]:
    """Turn Redis' errors into ours.

    Raises:
        StoreUnavailable: Redis does not answer.
    """
    try:
        yield
    except (RedisError, OSError, RuntimeError) as error:
        # uvloop's answer to a write to a connection that was reset is a RuntimeError.
        raise StoreUnavailable("the task store does not answer", retry_after=1.0) from error
