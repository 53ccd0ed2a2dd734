"""Gateways for contract tests."""

import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from loragen.logs import JsonFormatter
from server.shared import Shared
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import Gateway, gateway, redis_shared, redis_store, settings
from tests.fakes.limited import LONG_WINDOW_SECONDS, Held, Limited, counting_over
from tests.fakes.valkey import Valkey


@pytest.fixture(scope="session")
def shared_gate(valkey: Valkey) -> Iterator[Gateway]:
    """One gateway for all tests that leave its processes alone; use `gate`."""
    with gateway(redis_shared(valkey.url, "shared"), "shared") as running:
        yield running


@pytest.fixture
def gate(shared_gate: Gateway, valkey: Valkey) -> Gateway:
    """A gateway over a real Redis-protocol server, a fake worker and a stub generator.

    Tasks and neighbours are as on the first day.
    """
    for key in valkey.client.scan_iter(f"{shared_gate.namespace}:*"):
        valkey.client.delete(key)
    shared_gate.reset()
    return shared_gate


@pytest.fixture
def own_gate(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    """A gateway of the test's own, whose neighbours it may kill."""
    with gateway(redis_store(valkey.url, namespace), namespace) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything any logger says, as a process of ours would write it."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def admin(valkey: Valkey, namespace: str) -> Iterator[AdminApi]:
    """An admin API over an empty namespace."""
    with admin_api(valkey.url, namespace) as running:
        yield running


@pytest.fixture
def window_seconds() -> int:
    """How long what a tenant takes counts at `two`; a test of the minute itself says so."""
    return LONG_WINDOW_SECONDS


@pytest.fixture
def overrides() -> dict[str, dict[str, Any]]:
    """What else `two` are told, by section of the settings."""
    return {}


@pytest.fixture
def two(
    valkey: Valkey, namespace: str, window_seconds: int, overrides: dict[str, dict[str, Any]]
) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways of the same namespace that ask for keys."""
    sections: dict[str, Any] = {
        **overrides,
        "server": {"auth": "keys", **overrides.get("server", {})},
    }
    # A busy machine is not a lost Redis, without which nothing is counted.
    store = {"timeout_seconds": 30.0}
    told = settings([], namespace=namespace, redis_url=valkey.url, store=store)

    def shared() -> Shared:
        return counting_over(Shared.connect(told), namespace, window_seconds)

    with (
        gateway(shared(), namespace, **sections) as one,
        gateway(shared(), namespace, **sections) as other,
    ):
        yield one, other


@pytest.fixture
def limited(admin: AdminApi, two: tuple[Gateway, Gateway]) -> Limited:
    """Make tenant acme with limits and return a gateway whose client, as the other's, is its."""

    def make(**limits: int) -> Gateway:
        admin.create_tenant(limits=limits)
        key = admin.create_key()["key"]
        for gate in two:
            gate.http.headers["authorization"] = f"Bearer {key}"
        return two[0]

    return make


@pytest.fixture
def held(valkey: Valkey, namespace: str) -> Held:
    """What Redis itself holds of tenant acme: requests that run, tokens that count."""
    client: Any = valkey.client

    def read() -> tuple[int, int]:
        tokens = client.hvals(f"{namespace}:tokens:acme")
        return client.zcard(f"{namespace}:running:acme"), sum(map(int, tokens))

    return read


@pytest.fixture
async def many() -> AsyncIterator[httpx.AsyncClient]:
    """A client with as many connections as it wants."""
    pool = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=pool) as client:
        yield client
