"""What a killed gateway held of a tenant's limits comes back to the tenant by itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Clients that nobody waits for once the test is over."""
    pool = ThreadPoolExecutor(4)
    yield pool
    pool.shutdown(wait=False, cancel_futures=True)


def ask(gate: GatewayProcess) -> httpx.Response | None:
    """Return the answer; None where the gateway died instead."""
    try:
        return gate.http.post("/v1/chat/completions", json=CHAT, timeout=180)
    except httpx.TransportError:
        return None


def tokens_of(reply: httpx.Response | None) -> int:
    """Return the tokens that an answer took."""
    assert reply is not None
    assert reply.status_code == 200, reply.text
    return int(reply.json()["usage"]["total_tokens"])


def is_refused(gate: GatewayProcess) -> bool:
    """Whether there is no place for a call, one that takes no tokens."""
    return gate.http.get("/v1/models").status_code == 429


def tokens_left(gate: GatewayProcess) -> int:
    return int(gate.http.get("/v1/models").headers["x-ratelimit-remaining-tokens"])


def test_places_and_tokens_of_a_killed_gateway_are_free_again(
    worker: FakeWorker,
    two: tuple[GatewayProcess, GatewayProcess],
    threads: ThreadPoolExecutor,
    valkey: Valkey,
    namespace: str,
) -> None:
    one, other = two
    running = f"{namespace}:running:acme"
    worker.hold = True
    lost = [threads.submit(ask, one) for _ in range(2)]
    wait_until(lambda: worker.held == 2)
    assert is_refused(other)
    assert valkey.client.zcard(running) == 2
    assert tokens_left(other) < TOKENS - 200
    one.process.kill()
    assert [each.result(10) for each in lost] == [None, None]
    assert is_refused(other)  # nobody knows yet that it is dead
    wait_until(lambda: worker.held == 0)
    # A call lets those end that may.
    wait_until(
        lambda: not is_refused(other) and valkey.client.zcard(running) == 0,
        seconds=LEASE_SECONDS + 10,
    )
    served = [threads.submit(ask, other) for _ in range(2)]
    wait_until(lambda: worker.held == 2)  # at once, as before
    worker.hold = False
    used = sum(tokens_of(each.result(30)) for each in served)
    assert valkey.client.zcard(running) == 0
    wait_until(lambda: tokens_left(other) >= TOKENS - used, seconds=90)
    assert tokens_left(other) == TOKENS - used
