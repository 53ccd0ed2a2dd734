"""What a killed gateway held of a tenant's limits comes back to the tenant by itself."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from loragen.limits import LEASE_SECONDS
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL
from tests.fakes.gateway_process import GatewayProcess, config_of, gateway_processes
from tests.fakes.live import live, wait_until
from tests.fakes.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(240)]

ADMIN_SECRET = "admin-secret-of-tests"
TOKENS = 10_000
CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 100,
}


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def two(
    worker: FakeWorker, valkey: Valkey, tmp_path: Path, namespace: str
) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Two gateways whose clients show the key of a tenant that may run two requests at once."""
    with ExitStack() as stack:
        server = stack.enter_context(live(worker.app))
        config = config_of([server.url], namespace=namespace, auth="keys")
        environment = {"LORAGEN_ADMIN_SECRET": ADMIN_SECRET}
        one, other = stack.enter_context(
            gateway_processes(tmp_path, config, valkey.url, count=2, environment=environment)
        )
        admin = f"http://127.0.0.1:{one.admin_port}/admin/tenants"
        limits = {"concurrent_requests": 2, "tokens_per_minute": TOKENS}
        headers = {"authorization": f"Bearer {ADMIN_SECRET}"}
        made = httpx.post(admin, json={"id": "acme", "limits": limits}, headers=headers)
        assert made.status_code == 201, made.text
        key = httpx.post(f"{admin}/acme/keys", json={}, headers=headers).json()["key"]
        for each in (one, other):
            each.http.headers["authorization"] = f"Bearer {key}"
        yield one, other


def ask(gate: GatewayProcess) -> int:
    try:
        return gate.http.post("/v1/chat/completions", json=CHAT, timeout=180).status_code
    except httpx.TransportError:
        return 0


def tokens_left(gate: GatewayProcess) -> int:
    return int(gate.http.get("/v1/models").headers["x-ratelimit-remaining-tokens"])


def test_places_and_tokens_of_a_killed_gateway_are_free_again(
    worker: FakeWorker, two: tuple[GatewayProcess, GatewayProcess]
) -> None:
    one, other = two
    worker.hold = True
    held = [threading.Thread(target=ask, args=(one,)) for _ in range(2)]
    for each in held:
        each.start()
    wait_until(lambda: worker.held == 2)
    assert ask(other) == 429
    reserved = TOKENS - tokens_left(other)
    assert reserved > 200
    one.process.kill()
    for each in held:
        each.join(10)
    assert ask(other) == 429  # nobody knows yet that it is dead
    worker.hold = False
    wait_until(lambda: ask(other) == 200, seconds=LEASE_SECONDS + 10)
    assert ask(other) == 200
    wait_until(lambda: tokens_left(other) > TOKENS - 10, seconds=90)
