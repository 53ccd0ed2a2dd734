"""Probe: does a service of this machine answer yet. Cheap, for it is asked four times a second."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from loragen.errors import ConfigError

PROBE_SECONDS: Final = 2.0
REDIS_PORT: Final = 6379

Probe = Callable[[], Awaitable[bool]]


def answers(url: str) -> Probe:
    """Return a probe that is true when a GET of the address answers 200."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    host, port = parts.hostname, parts.port
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"

    async def probe() -> bool:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PROBE_SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
                try:
                    writer.write(request.encode("ascii"))
                    return (await reader.readline()).split()[1:2] == [b"200"]
                finally:
                    writer.close()
        return False

    return probe


async def require_redis(url: str) -> None:
    """Check that something listens where `redis_url` points.

    Raises:
        ConfigError: nothing does, or it is no address.
    """
    parts = urlsplit(url)
    if parts.hostname is None:  # a Unix socket
        return
    try:
        port = parts.port or REDIS_PORT
    except ValueError as error:
        raise ConfigError(f"redis_url: {error}") from error
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as error:
        raise ConfigError(f"redis_url: nothing answers at {parts.hostname}:{port}") from error
    writer.close()
