"""A prompt that auto mode knows is registered while auto mode compiles it: what was asked stays."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from loragen.errors import GeneratorUnavailable
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared, tenant_keys
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada and answer every question in at most three words."
TASK_ID = tenant_keys().task_ids(edge_model=MODEL, prompt=PROMPT)[0]
AUTO = {"min_prompt_tokens": 8, "compile_budget": 3}


@pytest.fixture
def gate(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    shared = redis_shared(valkey.url, namespace, **AUTO)
    with gateway(shared, namespace, auto=AUTO) as gate:
        yield gate


def test_a_compile_of_the_implicit_task_does_not_write_it_back(
    gate: Gateway, valkey: Valkey
) -> None:
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "hi"}]
    gate.generator.error = GeneratorUnavailable("away")
    gate.ask("", messages=messages, system_prompt="compile")
    gate.generator.error, gate.generator.is_held = None, True
    wait_until(lambda: gate.ask("", messages=messages) and gate.generator.calls[PROMPT] > 1)
    replies: list[httpx.Response] = []
    fields = {"model": MODEL, "system_prompt": PROMPT, "policy": {"fallback": "error"}}
    posting = threading.Thread(
        target=lambda: replies.append(gate.http.post("/v1/tasks", json=fields))
    )
    posting.start()
    posting.join(0.5)  # it may come back at once, or wait for the compile
    gate.generator.is_held = False
    posting.join(10)
    assert [reply.status_code for reply in replies] == [201]
    wait_until(lambda: gate.http.get(f"/v1/tasks/{TASK_ID}").json()["status"] == "ready")
    assert gate.http.get(f"/v1/tasks/{TASK_ID}").json()["policy"]["fallback"] == "error"
    assert [each["id"] for each in gate.http.get("/v1/tasks").json()["data"]] == [TASK_ID]
    assert gate.http.post("/v1/tasks", json=fields).json()["cached"]
    assert valkey.client.ttl(f"{gate.namespace}:task:default:{TASK_ID}") == -1


def test_what_can_be_neither_read_nor_made_is_a_conflict(gate: Gateway, valkey: Valkey) -> None:
    valkey.client.hset(f"{gate.namespace}:task:default:{TASK_ID}", "link", "nobody")
    reply = gate.http.post("/v1/tasks", json={"model": MODEL, "system_prompt": PROMPT})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
