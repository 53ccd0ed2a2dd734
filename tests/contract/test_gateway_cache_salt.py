"""No two tenants share a block of a worker's prefix cache, whatever they send and how."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.admin import admin_api
from tests.fakes.gateway import MASTER_SECRET, MODEL, Gateway, gateway, redis_shared
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

TENANTS = ("acme", "globex")
PROMPT = "You are Ada."
QUESTION = {"role": "user", "content": "hello"}
RESIDUE = {"role": "system", "content": "Be brief."}
Chat = dict[str, Any]


@pytest.fixture
def keys(valkey: Valkey, namespace: str) -> dict[str, str]:
    """A key of each tenant."""
    with admin_api(valkey.url, namespace) as admin:
        for tenant in TENANTS:
            admin.create_tenant(tenant)
        return {tenant: str(admin.create_key(tenant)["key"]) for tenant in TENANTS}


@pytest.fixture
def closed(valkey: Valkey, namespace: str, keys: dict[str, str]) -> Iterator[Gateway]:
    with gateway(redis_shared(valkey.url, namespace), namespace, server={"auth": "keys"}) as gate:
        yield gate


def salts(gate: Gateway, keys: dict[str, str], path: str, fields: Chat, mode: str) -> set[str]:
    """Send the same from both tenants twice, and return what the worker was told."""
    for key in (*keys.values(), *keys.values()):
        gate.http.headers["authorization"] = f"Bearer {key}"
        body = {name: value for name, value in fields.items() if name != "has_task"}
        if "has_task" in fields:
            body["task_id"] = gate.create(PROMPT)["id"]
        reply = gate.http.post(path, json={"model": MODEL, **body})
        assert reply.headers["x-loragen-mode"] == mode, reply.text
    told = [seen.cache_salt for seen in gate.worker.seen]
    assert told[:2] == told[2:]  # a tenant finds its own blocks again
    return {str(salt) for salt in told}


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({"messages": [QUESTION]}, "base"),
        ({"messages": [RESIDUE, QUESTION]}, "prompt"),
        ({"messages": [QUESTION], "has_task": True}, "compiled"),
        ({"messages": [QUESTION], "has_task": True, "stream": True}, "compiled"),
        ({"messages": [RESIDUE, QUESTION], "has_task": True}, "hybrid"),
        ({"messages": [QUESTION], "has_task": True, "loragen": {"mode": "prompt"}}, "prompt"),
        ({"prompt": "hello"}, "base"),
        ({"prompt": ["hello", "there"], "has_task": True}, "compiled"),
        ({"prompt": "hello", "has_task": True, "loragen": {"mode": "prompt"}}, "prompt"),
    ],
)
def test_the_same_request_of_two_tenants_has_two_salts(
    closed: Gateway, keys: dict[str, str], fields: Chat, mode: str
) -> None:
    path = "/v1/completions" if "prompt" in fields else "/v1/chat/completions"
    told = salts(closed, keys, path, fields, mode)
    assert len(told) == 2
    # What vLLM takes: no more than 128 characters, none of @ / \ and NUL.
    assert all(len(salt) == 32 and salt.isalnum() for salt in told)


def test_responses_are_salted_too(closed: Gateway, keys: dict[str, str]) -> None:
    for key in keys.values():
        headers = {"authorization": f"Bearer {key}"}
        body = {"model": MODEL, "input": "hello"}
        assert closed.http.post("/v1/responses", json=body, headers=headers).status_code == 200
    assert len({seen.cache_salt for seen in closed.worker.seen}) == 2


def test_after_a_mismatch_of_pools_the_other_try_is_salted(
    closed: Gateway, keys: dict[str, str]
) -> None:
    closed.http.headers["authorization"] = f"Bearer {keys['acme']}"
    task = closed.create(PROMPT)["id"]
    closed.worker.pool_id = closed.generator.pool_id = "00" * 32
    assert closed.ask("hello", task_id=task).headers["x-loragen-mode"] == "compiled"
    assert {len(str(seen.cache_salt)) for seen in closed.worker.seen} == {32}


def test_a_salt_follows_from_the_master_secret_and_says_nothing_of_it(
    closed: Gateway, keys: dict[str, str]
) -> None:
    reply = closed.http.post(
        "/v1/chat/completions",
        json={"model": MODEL, "messages": [QUESTION]},
        headers={"authorization": f"Bearer {keys['acme']}"},
    )
    salt = str(closed.worker.seen[-1].cache_salt)
    told = f"{reply.text}{reply.headers}"
    assert salt not in told  # nobody who knew it could send it, but nobody is to know it
    assert not any(secret in salt for secret in (*TENANTS, MASTER_SECRET[:16]))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
def test_a_client_cannot_choose_its_salt(closed: Gateway, keys: dict[str, str], path: str) -> None:
    body = {"model": MODEL, "cache_salt": "x"}
    own: dict[str, Chat] = {"chat": {"messages": [QUESTION]}, "completions": {"prompt": "x"}}
    fields = own.get(path.split("/")[2], {"input": "x"})
    reply: httpx.Response = closed.http.post(
        path, json={**body, **fields}, headers={"authorization": f"Bearer {keys['acme']}"}
    )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "cache_salt")
    assert closed.worker.seen == []
