"""`GET /v1/usage` and the export say what tenants were served, and cost no answer any time."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from loragen.usage import Numbers, UsageKey
from server.usage_meter import today
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.memory_store import MemoryStore
from tests.fakes.memory_tenants import MemoryTenants
from tests.fakes.memory_usage import MemoryUsage
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

Rows = dict[tuple[str, str | None], dict[str, Any]]


@pytest.fixture
def admin(valkey: Valkey, namespace: str) -> Iterator[AdminApi]:
    """An admin API over an empty namespace."""
    with admin_api(valkey.url, namespace) as running:
        yield running


@pytest.fixture
def gate(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    """A gateway of the same namespace, open."""
    with gateway(redis_shared(valkey.url, namespace), namespace) as running:
        yield running


def rows(gate: Gateway) -> Rows:
    """Return today's usage by mode and task."""
    found = gate.http.get("/v1/usage").json()["data"]
    assert {row["day"] for row in found} <= {today().isoformat()}
    assert {row["model"] for row in found} <= {MODEL}
    return {(row["mode"], row["task_id"]): row for row in found}


def numbers(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[what] for what in Numbers().shown())


def test_usage_is_what_answers_said_by_mode_and_task(gate: Gateway) -> None:
    task = gate.create("You are Ada.")
    compiled = gate.ask("hi there", task_id=task["id"]).json()["usage"]
    prompt = gate.ask("hi", task_id=task["id"], loragen={"mode": "prompt"}).json()["usage"]
    base = gate.ask("hi").json()["usage"]
    gate.ask("hi", model="nobody")
    gate.worker.fail_status = 500
    gate.ask("hi")
    found = rows(gate)
    assert set(found) == {("compiled", task["id"]), ("prompt", task["id"]), ("base", None)}
    for key, usage, saved in (
        (("compiled", task["id"]), compiled, task["prompt_tokens"]),
        (("prompt", task["id"]), prompt, 0),
        (("base", None), base, 0),
    ):
        expected = (1, usage["prompt_tokens"], saved, usage["completion_tokens"])
        assert numbers(found[key]) == expected
    whole = gate.http.get("/v1/usage").json()
    assert whole["total"]["requests"] == 3
    assert whole["until"] == today().isoformat()


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_is_counted_whether_it_shows_its_usage_or_not(gate: Gateway, asked: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    reply = gate.ask("one two three", stream=True, **options)
    assert ('"usage":{' in reply.text) is asked
    whole = gate.ask("one two three").json()["usage"]
    found = numbers(rows(gate)["base", None])
    assert found == (2, 2 * whole["prompt_tokens"], 0, 2 * whole["completion_tokens"])


def test_a_stream_that_is_left_is_counted_as_far_as_it_came(gate: Gateway) -> None:
    gate.worker.hold_after = 2
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a b c d"}], "stream": True}
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert next(reply.iter_lines())
    wait_until(lambda: rows(gate))
    requests, prompt, _, generated = numbers(rows(gate)["base", None])
    assert requests == 1
    assert prompt > 0
    assert generated == 2
    gate.worker.hold_after = None


def test_responses_and_completions_are_counted_too(gate: Gateway) -> None:
    gate.http.post("/v1/responses", json={"model": MODEL, "input": "hi"})
    gate.http.post("/v1/responses", json={"model": MODEL, "input": "hi", "stream": True})
    gate.http.post("/v1/completions", json={"model": MODEL, "prompt": "hi"})
    assert rows(gate)["base", None]["requests"] == 3


def test_a_deleted_tasks_usage_stays_without_its_id(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create("You are Ada.")["id"]
    gate.ask("hi", task_id=task_id)
    assert rows(gate)["compiled", task_id]["requests"] == 1
    gate.ask("hi", task_id=task_id)  # not written down yet when the task goes
    gate.http.delete(f"/v1/tasks/{task_id}")
    assert rows(gate)["compiled", "deleted"]["requests"] == 2
    assert not [each for each in valkey.contents(gate.namespace) if task_id.encode() in each]


def test_the_days_can_be_chosen(gate: Gateway) -> None:
    gate.ask("hi")
    yesterday = (today() - timedelta(days=1)).isoformat()
    for query, count in (
        ({}, 1),
        ({"since": today().isoformat()}, 1),
        ({"until": yesterday}, 0),
        ({"since": yesterday, "until": yesterday}, 0),
    ):
        assert gate.http.get("/v1/usage", params=query).json()["total"]["requests"] == count
    for wrong in (
        {"since": "tomorrow"},
        {"until": "0"},
        {"until": "0001-01-01"},
        {"until": "9999-12-31", "since": "0001-01-01"},
        {"since": today().isoformat(), "until": yesterday},
        {"since": "2020-01-01", "until": "2026-01-01"},
        {"day": yesterday},
    ):
        assert gate.http.get("/v1/usage", params=wrong).status_code == 400


def test_tenants_see_their_own_and_the_operator_exports_all(gate: Gateway, admin: AdminApi) -> None:
    gate.ask("hi")
    for tenant, count in (("acme", 1), ("globex", 2)):
        admin.create_tenant(tenant)
        headers = {"authorization": f"Bearer {admin.create_key(tenant)['key']}"}
        for _ in range(count):
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
            gate.http.post("/v1/chat/completions", json=body, headers=headers)
        own = gate.http.get("/v1/usage", headers=headers).json()
        assert own["total"]["requests"] == count
    reply = admin.http.get("/admin/usage")
    assert reply.headers["content-type"] == "application/x-ndjson"
    exported = [json.loads(line) for line in reply.text.splitlines()]
    assert {row["tenant"]: row["requests"] for row in exported} == {
        "default": 1, "acme": 1, "globex": 2,
    }  # fmt: skip
    assert set(exported[0]) == {
        "tenant", "day", "model", "mode", "task_id", *Numbers().shown(),
    }  # fmt: skip
    assert admin.http.get("/admin/usage", params={"until": "2020-01-01"}).text == ""


def test_a_store_that_hangs_delays_no_answer(valkey: Valkey, namespace: str) -> None:
    class Hanging(MemoryUsage):
        begun = False
        hangs = True

        async def add(self, batch_id: str, numbers: Mapping[UsageKey, Numbers]) -> None:
            self.begun = True
            while self.hangs:  # noqa: ASYNC110 - ended from another thread
                await asyncio.sleep(0.01)

    usage = Hanging(MemoryStore(), MemoryTenants())
    shared = replace(redis_shared(valkey.url, namespace), usage=usage)
    with gateway(shared, namespace) as gate:
        gate.ask("hi")
        wait_until(lambda: usage.begun)
        started = time.monotonic()
        for _ in range(10):
            assert gate.ask("hi").status_code == 200
        assert time.monotonic() - started < 5
        usage.hangs = False
