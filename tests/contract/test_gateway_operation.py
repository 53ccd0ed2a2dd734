"""What operators see, and what happens when a neighbour goes away and comes back."""

from pathlib import Path
from typing import get_args

import openai
import pytest

from loragen import __version__
from loragen.task import FallbackReason
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada."


def mode_of(gate: Gateway, task_id: str) -> str | None:
    """Return how a question to the task is served, or None if it is not."""
    mode: str | None = gate.ask("hi", task_id=task_id).headers.get("x-loragen-mode")
    return mode


def test_it_lives_is_ready_and_says_its_version(gate: Gateway) -> None:
    assert gate.http.get("/health").json() == {"status": "ok"}
    ready = gate.http.get("/ready")
    content = {"status": "ready", "missing": [], "backends": {MODEL: ["gate"]}}
    assert (ready.status_code, ready.json()) == (200, content)
    assert gate.http.get("/version").json() == {"version": __version__}


def test_one_model_can_be_asked_for(gate: Gateway) -> None:
    assert gate.client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        gate.client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_models_are_edge_models_and_on_request_named_tasks(gate: Gateway) -> None:
    gate.create("One.", name="ada")
    gate.create("Two.")
    assert [model.id for model in gate.client.models.list()] == [MODEL]
    page = gate.http.get("/v1/models", params={"tasks": "true"}).json()
    assert [model["id"] for model in page["data"]] == [MODEL, f"{MODEL}:ada"]
    assert {model["object"] for model in page["data"]} == {"model"}
    assert gate.http.get("/v1/models", params={"tasks": "perhaps"}).status_code == 400


def test_metrics_count_by_route_status_and_mode_and_name_no_task(gate: Gateway) -> None:
    def count(route: str, code: str, mode: str = "none") -> float:
        return gate.metric("loragen_requests_total", route=route, code=code, mode=mode)

    before = count("/v1/chat/completions", "200", "compiled"), count("/v1/tasks/{task_id}", "404")
    unmatched = count("unmatched", "404")
    task_id = gate.create(PROMPT)["id"]
    gate.ask("hi", task_id=task_id)
    gate.http.get("/v1/tasks/task_nobody")
    gate.http.get("/some/secret/path")
    assert count("/v1/chat/completions", "200", "compiled") == before[0] + 1
    assert count("/v1/tasks/{task_id}", "404") == before[1] + 1
    assert count("unmatched", "404") == unmatched + 1
    text = gate.http.get("/metrics").text
    assert "loragen_requests_total" in text
    assert task_id not in text
    assert "/some/" not in text


def test_a_counter_of_a_closed_set_is_there_before_it_moves(gate: Gateway) -> None:
    text = gate.http.get("/metrics").text
    for reason in get_args(FallbackReason):
        assert f'loragen_compile_failures_total{{reason="{reason}"}}' in text
        assert f'loragen_fallback_total{{reason="{reason}"}}' in text


def test_without_its_worker_requests_are_503_until_it_is_back(own_gate: Gateway) -> None:
    gate = own_gate
    worker = {"model": MODEL, "worker": gate.worker_server.url}
    task_id = gate.create(PROMPT)["id"]
    assert mode_of(gate, task_id) == "compiled"
    assert gate.metric("loragen_worker_up", **worker) == 1
    gate.worker_server.kill()
    for _ in range(3):
        reply = gate.ask("hi", task_id=task_id)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "worker_unavailable"
        assert int(reply.headers["retry-after"]) >= 1
    wait_until(lambda: gate.http.get("/ready").status_code == 503)
    assert MODEL in str(gate.http.get("/ready").json()["missing"])
    wait_until(lambda: gate.metric("loragen_worker_up", **worker) == 0)
    assert gate.http.get("/health").status_code == 200
    assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 200
    body = {"model": MODEL, "system_prompt": "New."}
    assert gate.http.post("/v1/tasks", json=body).status_code == 503
    gate.worker_server.start()
    wait_until(lambda: mode_of(gate, task_id) == "compiled")
    gate.wait_ready()


def test_a_worker_of_another_model_or_key_is_not_ready(own_gate: Gateway) -> None:
    for knob, wrong in (("edge_model", "other"), ("key", "other")):
        right = getattr(own_gate.worker, knob)
        setattr(own_gate.worker, knob, wrong)
        wait_until(lambda: own_gate.http.get("/ready").status_code == 503)
        setattr(own_gate.worker, knob, right)
        own_gate.wait_ready()


def test_flushed_recipes_are_compiled_again(gate: Gateway, valkey: Valkey) -> None:
    task = gate.create(PROMPT)
    for key in valkey.client.scan_iter(f"{gate.namespace}:recipe:*"):
        valkey.client.delete(key)
    wait_until(lambda: mode_of(gate, task["id"]) and gate.generator.calls[PROMPT] == 2)
    assert mode_of(gate, task["id"]) == "compiled"
    assert len(list(valkey.client.scan_iter(f"{gate.namespace}:recipe:*"))) == 1


@pytest.mark.parametrize("keep", [0, 20, 50])
def test_a_truncated_recipe_heals(gate: Gateway, valkey: Valkey, keep: int) -> None:
    task = gate.create(PROMPT)
    (key,) = valkey.client.scan_iter(f"{gate.namespace}:recipe:*")
    valkey.client.set(key, expected_recipe(PROMPT).data[:keep])
    wait_until(lambda: mode_of(gate, task["id"]) and gate.generator.calls[PROMPT] == 2)
    reply = gate.ask("hi", task_id=task["id"])
    assert reply.headers["x-loragen-recipe"] == task["recipe"]["id"]
    assert valkey.client.get(key) == expected_recipe(PROMPT).data


def test_flushing_everything_forgets_the_tasks(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create(PROMPT)["id"]
    for key in valkey.client.scan_iter(f"{gate.namespace}:*"):
        valkey.client.delete(key)
    wait_until(lambda: mode_of(gate, task_id) is None)
    reply = gate.ask("hi", task_id=task_id)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "task_not_found")
    assert gate.create(PROMPT)["id"] == task_id
    assert gate.http.get(f"/v1/tasks/{task_id}").json()["status"] == "ready"


def test_without_redis_known_tasks_serve_and_it_comes_back(tmp_path: Path, namespace: str) -> None:
    server = Valkey(tmp_path)
    try:
        with gateway(redis_store(server.url, namespace), namespace) as gate:
            task_id = gate.create(PROMPT, name="ada")["id"]
            assert mode_of(gate, task_id) == mode_of(gate, "ada") == "compiled"
            server.kill()
            ready = gate.http.get("/ready")
            assert (ready.status_code, len(ready.json()["missing"])) == (503, 1)
            wait_until(lambda: gate.metric("loragen_store_up") == 0)
            assert mode_of(gate, task_id) == mode_of(gate, "ada") == "compiled"
            assert gate.ask("no task").status_code == 200
            body = {"model": MODEL, "system_prompt": "New."}
            refused = gate.http.post("/v1/tasks", json=body)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "store_unavailable"
            server.start()
            gate.wait_ready()
            wait_until(lambda: mode_of(gate, task_id) is None)  # this Redis lost its data
            assert gate.create(PROMPT)["id"] == task_id
    finally:
        server.kill()


def test_a_restarted_gateway_knows_its_tasks_and_compiles_nothing(
    valkey: Valkey, namespace: str
) -> None:
    with gateway(redis_store(valkey.url, namespace), namespace) as first:
        task = first.create(PROMPT, name="ada")
    with gateway(redis_store(valkey.url, namespace), namespace) as second:
        reply = second.ask("hi", model=f"{MODEL}:ada")
        assert reply.headers["x-loragen-recipe"] == task["recipe"]["id"]
        assert second.create(PROMPT)["cached"] is True
        assert second.generator.calls.total() == 0


def test_a_delete_in_one_gateway_is_seen_by_another(valkey: Valkey, namespace: str) -> None:
    with (
        gateway(redis_store(valkey.url, namespace), namespace) as one,
        gateway(redis_store(valkey.url, namespace), namespace) as other,
    ):
        task_id = one.create(PROMPT)["id"]
        assert mode_of(other, task_id) == "compiled"
        one.http.delete(f"/v1/tasks/{task_id}")
        wait_until(lambda: mode_of(other, task_id) is None)


def test_two_workers_share_the_load_and_one_carries_it_alone(
    valkey: Valkey, namespace: str
) -> None:
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, workers=[FakeWorker(), FakeWorker()]) as gate:
        task_id = gate.create(PROMPT)["id"]
        wait_until(lambda: mode_of(gate, task_id) and all(w.seen for w in gate.workers))
        gate.worker_servers[0].kill()
        assert {mode_of(gate, task_id) for _ in range(10)} == {"compiled"}
        assert gate.http.get("/ready").status_code == 200
