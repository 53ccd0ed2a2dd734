"""API keys at the gateway: who gets in, who does not, and how fast a revocation is everywhere."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from loragen.api_key import ApiKey
from loragen.invalidations import WHOLE_TENANT
from server.shared import Shared
from tests.contract.tenants_contract import ACME, GLOBEX, record_of
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def key(valkey: Valkey, namespace: str) -> ApiKey:
    """A key of tenant acme."""

    async def make() -> ApiKey:
        shared, made = redis_shared(valkey.url, namespace), ApiKey.make()
        await shared.tenants.create(ACME)
        await shared.tenants.create(GLOBEX)
        await shared.tenants.add_key(record_of(made))
        await shared.close()
        return made

    return asyncio.run(make())


@pytest.fixture
def closed(valkey: Valkey, namespace: str, key: ApiKey) -> Iterator[Gateway]:
    """A gateway that asks for keys, and a client of it with one of tenant acme."""
    shared = redis_shared(valkey.url, namespace)
    with gateway(shared, namespace, server={"auth": "keys"}) as running:
        running.http.headers["authorization"] = f"Bearer {key.text}"
        yield running


def revoke(url: str, namespace: str, key: ApiKey) -> None:
    """Revoke a key of acme and tell all gateways."""

    async def work(shared: Shared) -> None:
        assert await shared.tenants.revoke("acme", key.id, now=int(time.time()))
        await shared.invalidations.publish("acme", WHOLE_TENANT)
        await shared.close()

    asyncio.run(work(redis_shared(url, namespace)))


def test_with_a_key_everything_works_through_the_openai_client(
    closed: Gateway, key: ApiKey
) -> None:
    client = openai.OpenAI(base_url=closed.server.url + "/v1", api_key=key.text, max_retries=0)
    task_id = closed.create("You are Ada.")["id"]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hi"}],
        extra_body={"task_id": task_id},
    )
    assert "hi" in str(answer.choices[0].message.content)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/models"),
        ("GET", f"/v1/models/{MODEL}"),
        ("GET", "/v1/tasks"),
        ("POST", "/v1/tasks"),
        ("GET", "/v1/tasks/export"),
        ("POST", "/v1/tasks/import"),
        ("DELETE", "/v1/tasks/task_x"),
        ("PUT", "/v1/tasks/by-name/ada"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
    ],
)
def test_without_a_good_key_no_path_says_anything(closed: Gateway, method: str, path: str) -> None:
    for shown in (None, "Bearer none", f"Bearer {ApiKey.make().text}", "Basic YTpi"):
        headers = {} if shown is None else {"authorization": shown}
        reply = httpx.request(method, closed.server.url + path, headers=headers, content=b"{")
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.headers["x-request-id"]
        error = reply.json()["error"]
        assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert error["param"] is None


def test_operation_needs_no_key(closed: Gateway) -> None:
    for path in ("/health", "/ready", "/version", "/metrics"):
        assert httpx.get(closed.server.url + path).status_code == 200


def test_a_tenant_sees_its_own_tasks_alone(closed: Gateway, valkey: Valkey, namespace: str) -> None:
    other = ApiKey.make()

    async def add() -> None:
        shared = redis_shared(valkey.url, namespace)
        await shared.tenants.add_key(record_of(other, GLOBEX))
        await shared.close()

    asyncio.run(add())
    task = closed.create("You are Ada.", name="ada")
    theirs = {"authorization": f"Bearer {other.text}"}
    assert closed.http.get("/v1/tasks", headers=theirs).json()["data"] == []
    for task_id in (task["id"], "ada"):
        reply = closed.http.post(
            "/v1/chat/completions", json={**CHAT, "task_id": task_id}, headers=theirs
        )
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "task_not_found")
    body = {"model": MODEL, "system_prompt": "You are Ada."}
    again = closed.http.post("/v1/tasks", json=body, headers=theirs)
    assert again.status_code == 201
    assert again.json()["id"] != task["id"]


def test_a_revocation_reaches_every_gateway_within_two_seconds(
    closed: Gateway, valkey: Valkey, namespace: str, key: ApiKey
) -> None:
    shared = redis_shared(valkey.url, namespace)
    # A memory that outlasts the test: only the word of it can be so fast.
    store = {"memory_ttl_seconds": 60.0}
    with gateway(shared, namespace, server={"auth": "keys"}, store=store) as second:
        second.http.headers["authorization"] = f"Bearer {key.text}"
        gates = (closed, second)
        channel = f"{namespace}:invalidations"
        wait_until(lambda: dict(valkey.client.pubsub_numsub(channel))[channel.encode()] == 6)
        assert [gate.ask("hi").status_code for gate in gates] == [200, 200]
        revoke(valkey.url, namespace, key)
        wait_until(lambda: [gate.ask("hi").status_code for gate in gates] == [401, 401], seconds=2)


def test_an_open_gateway_takes_anything_but_a_bad_key_of_ours(gate: Gateway) -> None:
    for shown in ("Bearer none", "Bearer any", "Basic YTpi"):
        reply = gate.http.get("/v1/models", headers={"authorization": shown})
        assert reply.status_code == 200
    bad = {"authorization": f"Bearer {ApiKey.make().text}"}
    assert gate.http.get("/v1/models", headers=bad).status_code == 401


def test_a_redis_that_lost_everything_lets_nobody_in(closed: Gateway, valkey: Valkey) -> None:
    assert closed.ask("hi").status_code == 200
    for name in valkey.client.scan_iter(f"{closed.namespace}:*"):
        valkey.client.delete(name)
    wait_until(lambda: closed.ask("hi").status_code == 401)
    assert httpx.get(closed.server.url + "/v1/models").status_code == 401
