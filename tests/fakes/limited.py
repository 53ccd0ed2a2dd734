"""Limited: a tenant with limits at two gateways, and what is asked of them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import httpx

from loragen.redis_limiter import RedisLimiter
from loragen.redis_store import RedisStore
from server.shared import Shared
from tests.fakes.gateway import MODEL, Gateway

Limited = Callable[..., Gateway]
Held = Callable[[], tuple[int, int]]

CHAT: Final[dict[str, Any]] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
LONG_WINDOW_SECONDS: Final = 3_600
"""A busy machine takes longer than a minute for a test, and what it counted would have left."""


def counting_over(shared: Shared, namespace: str, window_seconds: int) -> Shared:
    """Return shared state whose windows are so long; the numbers in them stay the configured."""
    assert isinstance(shared.store, RedisStore)
    limiter = RedisLimiter(shared.store._redis, namespace=namespace, window_seconds=window_seconds)
    return replace(shared, limiter=limiter)


def error_of(reply: httpx.Response) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def tokens_left(gate: Gateway) -> int:
    return int(gate.http.get("/v1/models").headers["x-ratelimit-remaining-tokens"])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what servers in other threads do
            await asyncio.sleep(0.02)
