"""Requests reach workers with a priority by which who has had least goes first."""

from collections.abc import Iterator

import pytest

from tests.fakes.admin import admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

LONG = "word " * 100


@pytest.fixture
def keys(valkey: Valkey, namespace: str) -> dict[str, str]:
    """A key of each tenant."""
    with admin_api(valkey.url, namespace) as admin:
        for tenant in ("flood", "late"):
            admin.create_tenant(tenant)
        return {tenant: str(admin.create_key(tenant)["key"]) for tenant in ("flood", "late")}


@pytest.fixture
def two(valkey: Valkey, namespace: str, keys: dict[str, str]) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways of one installation, each with a worker of its own."""
    server = {"auth": "keys"}
    with (
        gateway(redis_shared(valkey.url, namespace), namespace, server=server) as one,
        gateway(redis_shared(valkey.url, namespace), namespace, server=server) as other,
    ):
        yield one, other


def ask(gate: Gateway, key: str, text: str = "hello", **fields: object) -> int:
    """Ask as a tenant, and return the priority that reached the worker."""
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
    reply = gate.http.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return gate.worker.seen[-1].priority


def clock(valkey: Valkey, namespace: str, tenant: str) -> int:
    at = valkey.client.hget(f"{namespace}:clock:{tenant}:{MODEL}", "at")
    return int(str(at, "ascii")) if isinstance(at, bytes) else 0


def is_settled(valkey: Valkey, namespace: str) -> bool:
    """Whether every request that came has been charged what it cost."""
    return not valkey.client.exists(f"{namespace}:clock-tags:model={MODEL}")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tenant_is_charged_what_a_worker_counts(
    two: tuple[Gateway, Gateway], keys: dict[str, str], valkey: Valkey, namespace: str, stream: bool
) -> None:
    gate, _ = two
    assert ask(gate, keys["flood"], stream=stream, max_tokens=3) == 0
    wait_until(lambda: is_settled(valkey, namespace))
    # The fake worker's tokens: 4 of the prompt, and 3 generated, which count twice.
    assert clock(valkey, namespace, "flood") == 4 + 2 * 3
    assert ask(gate, keys["flood"], stream=stream, max_tokens=3) == 10


def test_who_has_had_less_goes_first_at_every_gateway(
    two: tuple[Gateway, Gateway], keys: dict[str, str], valkey: Valkey, namespace: str
) -> None:
    one, other = two
    one.worker.hold_after = 1
    headers = {"authorization": f"Bearer {keys['late']}"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with one.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as waiting:
        wait_until(lambda: one.worker.held == 1)  # so that the time is held back
        charged = ask(other, keys["flood"], LONG)
        assert charged == 0
        wait_until(lambda: clock(valkey, namespace, "flood") > 200)
        assert ask(other, keys["flood"]) > 200 > ask(other, keys["late"])
        one.worker.hold_after = None
        waiting.read()


def test_a_failed_request_costs_nothing(
    two: tuple[Gateway, Gateway], keys: dict[str, str], valkey: Valkey, namespace: str
) -> None:
    gate, _ = two
    gate.worker.fail_status = 500
    headers = {"authorization": f"Bearer {keys['flood']}"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": LONG}]}
    assert gate.http.post("/v1/chat/completions", json=body, headers=headers).status_code == 503
    wait_until(lambda: is_settled(valkey, namespace))
    assert clock(valkey, namespace, "flood") == 0


def test_completions_have_a_priority_too(
    two: tuple[Gateway, Gateway], keys: dict[str, str], valkey: Valkey, namespace: str
) -> None:
    gate, _ = two
    headers = {"authorization": f"Bearer {keys['flood']}"}
    ask(gate, keys["flood"])
    wait_until(lambda: is_settled(valkey, namespace))
    body = {"model": MODEL, "prompt": "hello"}
    assert gate.http.post("/v1/completions", json=body, headers=headers).status_code == 200
    assert gate.worker.seen[-1].priority == clock(valkey, namespace, "flood") - 1 - 2 * 3


def test_without_redis_requests_are_served_and_all_alike(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    own = Valkey(tmp_path_factory.mktemp("valkey"))
    with gateway(redis_shared(own.url, "away"), "away") as gate:
        for _ in range(2):
            assert gate.ask(LONG).status_code == 200
            wait_until(lambda: is_settled(own, "away"))
        heard = gate.worker.seen[-1].priority
        own.kill()
        for _ in range(3):
            assert gate.ask(LONG).status_code == 200
    assert {seen.priority for seen in gate.worker.seen[2:]} == {heard}
