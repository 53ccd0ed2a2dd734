"""Limits of tenants at the gateway: who is refused, what is said, and that gateways share them."""

import threading
from pathlib import Path
from typing import Any

import openai
import pytest

from loragen.limits import WINDOW_SECONDS
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.limited import CHAT, Limited, error_of
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("window_seconds", [WINDOW_SECONDS])
def test_too_many_requests_are_a_429_that_says_when_and_which_limit(limited: Limited) -> None:
    gate = limited(requests_per_minute=2)
    before = gate.metric("loragen_limits_rejected_total", limit="requests")
    first = gate.ask("hi")
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert 59 < float(first.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 61
    assert "x-ratelimit-limit-tokens" not in first.headers
    assert gate.http.get("/v1/tasks/task_nobody").headers["x-ratelimit-remaining-requests"] == "0"
    refused = gate.ask("hi")
    assert error_of(refused) == (429, "rate_limit_exceeded", "requests")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert gate.metric("loragen_limits_rejected_total", limit="requests") == before + 1
    key = gate.http.headers["authorization"].removeprefix("Bearer ")
    client = openai.OpenAI(base_url=gate.server.url + "/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.RateLimitError):
        client.models.list()
    assert gate.http.get("/health").status_code == 200


def test_a_tenant_without_limits_hears_nothing_of_them(limited: Limited) -> None:
    gate = limited()
    assert not [name for name in gate.ask("hi").headers if name.startswith("x-ratelimit")]


def test_a_changed_limit_is_in_force_within_two_seconds(limited: Limited, admin: AdminApi) -> None:
    gate = limited()
    assert gate.ask("hi").status_code == 200
    admin.http.patch("/admin/tenants/acme", json={"limits": {"requests_per_minute": 0}})
    wait_until(lambda: gate.ask("hi").status_code == 429, seconds=2)
    admin.http.patch("/admin/tenants/acme", json={"limits": {"requests_per_minute": None}})
    wait_until(lambda: gate.ask("hi").status_code == 200, seconds=2)


def test_a_tenant_runs_as_many_at_once_as_it_may_and_a_place_is_free_at_once(
    limited: Limited, two: tuple[Gateway, Gateway]
) -> None:
    gate = limited(concurrent_requests=1)
    gate.worker.hold = True
    done: list[int] = []
    running = threading.Thread(target=lambda: done.append(gate.ask("hi").status_code))
    running.start()
    wait_until(lambda: gate.worker.held == 1)
    refused = two[1].ask("hi")
    assert error_of(refused) == (429, "rate_limit_exceeded", "concurrency")
    assert refused.headers["retry-after"] == "1"
    gate.worker.hold = False
    running.join(10)
    assert done == [200]
    for number in range(20):  # one after the other, with nothing between
        assert two[number % 2].ask("hi", stream=bool(number % 3)).status_code == 200


def test_tasks_are_as_many_as_the_tenant_may_have(limited: Limited) -> None:
    gate = limited(tasks=2)
    one = gate.create("You are one.")["id"]
    gate.create("You are two.")
    body = {"model": MODEL, "system_prompt": "You are three."}
    refused = gate.http.post("/v1/tasks", json=body)
    assert error_of(refused) == (429, "rate_limit_exceeded", "tasks")
    assert "retry-after" not in refused.headers  # time alone does not help
    assert error_of(gate.http.put("/v1/tasks/by-name/ada", json=body))[2] == "tasks"
    assert gate.create("You are one.")["id"] == one
    gate.http.delete(f"/v1/tasks/{one}")
    gate.create("You are three.")


def test_compiles_are_as_many_as_the_tenant_may_have(limited: Limited) -> None:
    gate = limited(compiles_per_minute=1)
    task_id = gate.create("You are one.")["id"]
    gate.create("You are one.")  # it is known: nothing is compiled
    body: dict[str, Any] = {"model": MODEL, "system_prompt": "You are two."}
    assert error_of(gate.http.post("/v1/tasks", json=body))[2] == "compiles"
    messages = [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]
    compiled = {"model": MODEL, "messages": messages, "system_prompt": "compile"}
    assert error_of(gate.http.post("/v1/chat/completions", json=compiled))[2] == "compiles"
    probes = [{"input": str(number)} for number in range(8)]
    refine = gate.http.post(f"/v1/tasks/{task_id}/refine", json={"probes": probes})
    assert error_of(refine)[2] == "compiles"
    assert gate.ask("hi", task_id=task_id).headers["x-loragen-mode"] == "compiled"
    assert gate.generator.calls.total() == 1


def test_a_refine_that_does_not_begin_takes_no_compile(limited: Limited) -> None:
    gate = limited(compiles_per_minute=3)
    task_id = gate.create("You are one.")["id"]
    gate.generator.is_held = True
    path, body = f"/v1/tasks/{task_id}/refine", {"probes": [{"input": str(n)} for n in range(8)]}
    assert gate.http.post(path, json=body).status_code == 202
    for _ in range(3):
        assert error_of(gate.http.post(path, json=body))[1] == "conflict"
    gate.generator.is_held = False
    assert gate.create("You are two.")["status"] == "ready"


def test_prompts_are_as_large_as_the_tenant_may_send(limited: Limited) -> None:
    gate = limited(prompt_bytes=20)
    assert gate.create("You are brief.")
    body = {"model": MODEL, "system_prompt": "You are far too long."}
    refused = gate.http.post("/v1/tasks", json=body)
    assert error_of(refused) == (400, "invalid_request", "system_prompt")
    messages = [{"role": "system", "content": "You are far too long."}, *CHAT["messages"]]
    assert error_of(gate.ask("", messages=messages)) == (400, "invalid_request", "messages")


def test_without_redis_known_tenants_go_on_uncounted_or_are_refused(
    tmp_path: Path, namespace: str
) -> None:
    for is_open in (True, False):
        folder = tmp_path / str(is_open)
        folder.mkdir()
        server = Valkey(folder)
        limits = {"when_store_is_down": "allow" if is_open else "refuse"}
        try:
            with (
                admin_api(server.url, namespace) as admin,
                gateway(
                    redis_shared(server.url, namespace),
                    namespace,
                    server={"auth": "keys"},
                    limits=limits,
                ) as gate,
            ):
                admin.create_tenant(limits={"requests_per_minute": 1})
                gate.http.headers["authorization"] = f"Bearer {admin.create_key()['key']}"
                assert [gate.ask("hi").status_code for _ in range(2)] == [200, 429]
                before = gate.metric("loragen_limits_unchecked_total")
                server.kill()
                assert gate.ask("hi").status_code == (200 if is_open else 503)
                counted = gate.metric("loragen_limits_unchecked_total") - before
                assert counted == int(is_open)
        finally:
            server.kill()
