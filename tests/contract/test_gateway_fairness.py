"""One tenant's thousands of tasks do not keep another's first from being compiled."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.admin import admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

FLOOD = 200
"""Tasks of one tenant: many more than compile at once."""


@pytest.fixture
def keys(valkey: Valkey, namespace: str) -> dict[str, str]:
    """A key of each tenant."""
    with admin_api(valkey.url, namespace) as admin:
        for tenant in ("flood", "late"):
            admin.create_tenant(tenant)
        return {tenant: str(admin.create_key(tenant)["key"]) for tenant in ("flood", "late")}


@pytest.fixture
def closed(valkey: Valkey, namespace: str, keys: dict[str, str]) -> Iterator[Gateway]:
    # A busy machine is not a compile that takes too long.
    server = {"auth": "keys", "compile_timeout_seconds": 300.0}
    with gateway(redis_shared(valkey.url, namespace), namespace, server=server) as gate:
        yield gate


async def test_a_flood_of_tasks_delays_anothers_first_by_a_batch(
    closed: Gateway, keys: dict[str, str]
) -> None:
    def task(prompt: str) -> dict[str, Any]:
        return {"model": MODEL, "system_prompt": prompt, "wait": False}

    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=closed.server.url, timeout=240, limits=limits) as client:
        closed.generator.is_held = True
        flood = {"authorization": f"Bearer {keys['flood']}"}
        replies = await asyncio.gather(
            *(
                client.post("/v1/tasks", json=task(f"You are {number}."), headers=flood)
                for number in range(FLOOD)
            )
        )
        assert {reply.status_code for reply in replies} == {202}
        asked = closed.generator.calls.total()
        assert 0 < asked <= 32 + 1
        late = {"authorization": f"Bearer {keys['late']}"}
        made = await client.post("/v1/tasks", json=task("You are Ada."), headers=late)
        assert made.status_code == 202
        assert "You are Ada." not in closed.generator.calls
        closed.generator.is_held = False
        wait_until(lambda: closed.generator.calls.total() == FLOOD + 1, seconds=240)
    order = list(closed.generator.calls)
    # Its turn is the second that comes; what was given one at the same moment may overtake it.
    assert order.index("You are Ada.") <= asked + 2 * 32
