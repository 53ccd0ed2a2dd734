"""A model with a pool and no generator: its tasks have their prompts until they are refined."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.test_gateway_refining import error_of, recipe_used, refine, refined, shown
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "Answer in verse."
POOL: dict[str, Any] = {"has_generator": False, "edge": {"pool": "pool.safetensors"}}
OTHER_POOL = "00" * 32


@pytest.fixture
def pooled(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    with gateway(redis_shared(valkey.url, namespace), namespace, **POOL) as running:
        yield running


def said(gate: Gateway, task_id: str, **fields: Any) -> tuple[str, str | None]:
    """Return in which mode a task answers, and why it has no recipe."""
    headers = gate.ask("hi", task_id=task_id, **fields).headers
    return headers["x-loragen-mode"], headers.get("x-loragen-fallback-reason")


def state(task: dict[str, Any]) -> tuple[str, str | None]:
    return task["status"], task["fallback_reason"]


def test_a_task_has_its_prompt_until_it_is_refined_and_its_recipe_from_then_on(
    pooled: Gateway,
) -> None:
    task = pooled.create(PROMPT)
    assert state(task) == ("fallback", "no_generator")
    assert said(pooled, task["id"]) == ("prompt", "no_generator")
    after = refined(pooled, task["id"])
    (asked,) = pooled.generator.refines
    assert (asked.prompt, asked.start) == (PROMPT, None)
    assert (state(after), after["fidelity"]) == (("ready", None), 0.9)
    assert said(pooled, task["id"]) == ("compiled", None)
    assert recipe_used(pooled, task["id"]) == after["recipe"]["id"]
    assert pooled.create(PROMPT) == {**after, "cached": True}
    assert not pooled.generator.calls


def test_a_second_refine_begins_with_what_the_first_has_found(pooled: Gateway) -> None:
    task_id = pooled.create(PROMPT)["id"]
    first = refined(pooled, task_id)["recipe"]["id"]
    second = refined(pooled, task_id)
    assert pooled.generator.refines[1].start is not None
    assert second["refine"]["status"] == "done"
    assert second["recipe"]["id"] != first


def test_a_recipe_that_is_worth_too_little_leaves_the_prompt(pooled: Gateway) -> None:
    pooled.generator.fidelities = (0.0, 0.5)
    task_id = pooled.create(PROMPT)["id"]
    assert state(refined(pooled, task_id)) == ("fallback", "low_fidelity")
    assert said(pooled, task_id) == ("prompt", "low_fidelity")


def test_without_a_refiner_tasks_serve_their_prompts_and_stay_as_they_are(pooled: Gateway) -> None:
    task_id = pooled.create(PROMPT, wait=False)["id"]
    wait_until(lambda: state(shown(pooled, task_id)) == ("fallback", "no_generator"))
    assert said(pooled, task_id, loragen={"mode": "prompt"}) == ("prompt", "requested")
    demanded = pooled.ask("hi", task_id=task_id, loragen={"mode": "compiled"})
    assert error_of(demanded) == (400, "invalid_request", "loragen.mode")


def test_the_refined_recipe_outlives_memory_the_recipes_in_redis_and_the_gateway(
    valkey: Valkey, namespace: str
) -> None:
    forgetful = {"memory_entries": 1}
    with gateway(redis_shared(valkey.url, namespace), namespace, store=forgetful, **POOL) as gate:
        task_id = gate.create(PROMPT)["id"]
        recipe = refined(gate, task_id)["recipe"]["id"]
        assert recipe_used(gate, task_id) == recipe
        said(gate, gate.create("Another.")["id"])
        for key in valkey.client.scan_iter(f"{namespace}:recipe:*"):
            valkey.client.delete(key)
        before = gate.metric("loragen_recipe_cache_hits_total", tier="redis")
        assert recipe_used(gate, task_id) == recipe
        assert gate.metric("loragen_recipe_cache_hits_total", tier="redis") == before + 1
    with gateway(redis_shared(valkey.url, namespace), namespace, **POOL) as again:
        assert recipe_used(again, task_id) == recipe
        assert state(shown(again, task_id)) == ("ready", None)


def test_a_pool_that_changed_sets_the_task_back_until_it_is_refined_again(pooled: Gateway) -> None:
    task_id = pooled.create(PROMPT)["id"]
    refined(pooled, task_id)
    pooled.worker.pool_id = pooled.generator.pool_id = OTHER_POOL
    assert said(pooled, task_id) == ("prompt", "worker_pool_mismatch")
    task = shown(pooled, task_id)
    assert (state(task), task["recipe"]) == (("fallback", "worker_pool_mismatch"), None)
    sent = len(pooled.worker.seen)
    for _ in range(3):
        assert said(pooled, task_id) == ("prompt", "worker_pool_mismatch")
    assert [seen.recipe_id for seen in pooled.worker.seen[sent:]] == [None] * 3
    after = refined(pooled, task_id)
    assert pooled.generator.refines[-1].start is None
    assert after["recipe"]["pool_id"] == OTHER_POOL
    assert said(pooled, task_id) == ("compiled", None)


def test_a_refine_for_another_pool_begins_with_nothing(pooled: Gateway) -> None:
    task_id = pooled.create(PROMPT)["id"]
    refined(pooled, task_id)
    pooled.worker.pool_id = pooled.generator.pool_id = OTHER_POOL
    after = refined(pooled, task_id)
    assert after["refine"]["status"] == "done"
    assert pooled.generator.refines[-1].start is None
    assert after["recipe"]["pool_id"] == OTHER_POOL
    assert said(pooled, task_id) == ("compiled", None)


def test_what_another_gateway_refined_for_the_pool_of_now_is_not_set_back(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    slow = {"memory_ttl_seconds": 60}
    with (
        gateway(shared[0], namespace, **POOL) as one,
        gateway(shared[1], namespace, store=slow, **POOL) as two,
    ):
        task_id = one.create(PROMPT)["id"]
        old = refined(one, task_id)["recipe"]["id"]
        wait_until(lambda: recipe_used(two, task_id) == old)
        for gate in (one, two):
            gate.worker.pool_id = gate.generator.pool_id = OTHER_POOL
        assert said(one, task_id) == ("prompt", "worker_pool_mismatch")
        new = refined(one, task_id)["recipe"]["id"]
        wait_until(lambda: recipe_used(two, task_id) == new)
        assert shown(two, task_id)["recipe"]["id"] == new


def test_a_conversation_that_began_with_the_prompt_keeps_it(pooled: Gateway) -> None:
    task_id = pooled.create(PROMPT)["id"]
    first = pooled.ask("hello", task_id=task_id)
    text = first.json()["choices"][0]["message"]["content"]
    refined(pooled, task_id)
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": "go on"},
    ]
    assert said(pooled, task_id, messages=messages) == ("prompt", "running_conversation")
    assert said(pooled, task_id) == ("compiled", None)


def test_a_prompt_that_workers_cannot_read_may_be_one_that_the_refiner_can(
    pooled: Gateway,
) -> None:
    long = "word " * 300
    task = pooled.create(long)
    assert state(task) == ("fallback", "no_generator")
    unanswered = pooled.ask("hi", task_id=task["id"])
    assert error_of(unanswered)[:2] == (400, "context_length_exceeded")
    refined(pooled, task["id"])
    assert said(pooled, task["id"]) == ("compiled", None)


def test_system_text_without_a_task_is_passed_on(pooled: Gateway) -> None:
    task_id = pooled.create(PROMPT)["id"]
    refined(pooled, task_id)
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "hi"}]
    for wish in ("auto", "compile"):
        body = {"model": MODEL, "messages": messages, "system_prompt": wish}
        headers = pooled.http.post("/v1/chat/completions", json=body).headers
        assert headers["x-loragen-mode"] == "prompt"
        assert headers["x-loragen-fallback-reason"] == "no_generator"
    assert [task["id"] for task in pooled.http.get("/v1/tasks").json()["data"]] == [task_id]


def test_a_policy_that_forbids_the_prompt_waits_for_the_refine(pooled: Gateway) -> None:
    task = pooled.create(PROMPT, policy={"fallback": "error"})
    assert task["status"] == "failed"
    assert error_of(pooled.ask("hi", task_id=task["id"])) == (503, "unavailable", "task_id")
    assert state(refined(pooled, task["id"])) == ("ready", None)
    assert said(pooled, task["id"]) == ("compiled", None)


def test_a_refine_that_fails_leaves_the_prompt(pooled: Gateway) -> None:
    pooled.generator.fidelities = (0.3, 0.3)
    task_id = pooled.create(PROMPT)["id"]
    after = refined(pooled, task_id)
    assert (after["refine"]["status"], after["refine"]["reason"]) == ("kept", "not_better")
    assert (state(after), after["recipe"]) == (("fallback", "no_generator"), None)
    pooled.generator.is_held = True
    assert refine(pooled, task_id).status_code == 202
    assert said(pooled, task_id) == ("prompt", "no_generator")
