"""Refining through the wire: the task serves on, the better recipe stays, whatever happens."""

from typing import Any

import pytest

from loragen.errors import GeneratorUnavailable, InvalidRequest
from tests.contract.test_gateway_deletion import CANARY
from tests.contract.test_gateway_deletion import PROMPT as DELETED_PROMPT
from tests.fakes.gateway import (
    MODEL,
    Gateway,
    expected_recipe,
    gateway,
    redis_shared,
    redis_store,
    tenant_keys,
)
from tests.fakes.live import wait_until
from tests.fakes.stub_generator import recipe_of
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "Answer in verse."
PROBES: list[dict[str, Any]] = [{"input": f"Question {number}?"} for number in range(8)]


def shown(gate: Gateway, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = gate.http.get(f"/v1/tasks/{task_id}").json()
    return task


def refine(gate: Gateway, task_id: str, **fields: Any) -> Any:
    return gate.http.post(f"/v1/tasks/{task_id}/refine", json={"probes": PROBES, **fields})


def refined(gate: Gateway, task_id: str) -> dict[str, Any]:
    """Refine a task to the end and return it."""
    reply = refine(gate, task_id)
    assert reply.status_code == 202, reply.text
    wait_until(lambda: shown(gate, task_id)["refine"] != {"status": "running"})
    return shown(gate, task_id)


def error_of(reply: Any) -> tuple[int, str, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def recipe_used(gate: Gateway, task_id: str) -> str | None:
    recipe: str | None = gate.ask("hi", task_id=task_id).headers.get("x-loragen-recipe")
    return recipe


def test_a_task_serves_on_while_it_is_refined_and_then_by_the_better_recipe(gate: Gateway) -> None:
    task = gate.create(PROMPT)
    assert (task["refine"], task["fidelity"], task["measured"]) == (None, None, False)
    gate.generator.is_held = True
    reply = refine(gate, task["id"])
    assert reply.status_code == 202
    assert reply.json()["refine"] == {"status": "running"}
    assert shown(gate, task["id"]) == reply.json()
    assert recipe_used(gate, task["id"]) == expected_recipe(PROMPT).id
    gate.generator.is_held = False
    wait_until(lambda: shown(gate, task["id"])["refine"] != {"status": "running"})
    after = shown(gate, task["id"])
    assert after["refine"].pop("seconds") >= 0
    assert after["refine"].pop("at") >= after["created_at"]
    assert after["refine"] == {
        "status": "done", "reason": None, "probes": 8, "held_out": 4, "fidelity_before": 0.5,
        "fidelity_after": 0.9, "agreement_before": 0.5, "agreement_after": 1.0,
    }  # fmt: skip
    assert (after["status"], after["fidelity"], after["measured"]) == ("ready", 0.9, True)
    assert after["recipe"]["id"] != task["recipe"]["id"]
    assert recipe_used(gate, task["id"]) == after["recipe"]["id"]
    (asked,) = gate.generator.refines
    assert asked.start == expected_recipe(PROMPT).text
    assert (asked.prompt, [probe.input for probe in asked.probes or ()]) == (
        PROMPT, [probe["input"] for probe in PROBES]
    )  # fmt: skip


def test_harm_that_only_a_refine_finds_is_told_and_counted(gate: Gateway) -> None:
    harmed = gate.metric("loragen_negative_transfer_total")
    demoted = gate.metric("loragen_demotions_total", cause="harm")
    gate.generator.fidelities, gate.generator.does_harm = (0.0, 0.0), True
    task = refined(gate, gate.create(PROMPT)["id"])
    assert task["refine"]["reason"] == "not_better"
    assert [measure["does_harm"] for measure in task["measures"]] == [True]
    assert gate.metric("loragen_negative_transfer_total") == harmed + 1
    assert gate.metric("loragen_demotions_total", cause="harm") == demoted + 1


def test_a_refined_recipe_is_not_told_to_do_the_harm_of_its_start(gate: Gateway) -> None:
    harmed = gate.metric("loragen_negative_transfer_total")
    gate.generator.fidelities, gate.generator.does_harm = (0.0, 0.9), True
    task = refined(gate, gate.create(PROMPT)["id"])
    assert task["refine"]["status"] == "done"
    assert [measure["does_harm"] for measure in task["measures"]] == [False]
    assert gate.metric("loragen_negative_transfer_total") == harmed


@pytest.mark.parametrize(
    ("fidelities", "reason", "fidelity"),
    [((0.9, 0.9), "not_better", 0.9), ((None, None), "prompt_has_no_effect", None)],
)
def test_a_recipe_that_is_not_better_is_not_used(
    gate: Gateway, fidelities: Any, reason: str, fidelity: float | None
) -> None:
    gate.generator.fidelities = fidelities
    task = gate.create(PROMPT)
    after = refined(gate, task["id"])
    assert (after["refine"]["status"], after["refine"]["reason"]) == ("kept", reason)
    assert (after["recipe"], after["fidelity"]) == (task["recipe"], fidelity)
    assert after["measured"] is (fidelity is not None)
    assert recipe_used(gate, task["id"]) == task["recipe"]["id"]


def test_a_recipe_known_to_be_worth_too_little_is_not_served_with(gate: Gateway) -> None:
    gate.generator.fidelities = (0.2, 0.79)
    task_id = gate.create(PROMPT)["id"]
    task = refined(gate, task_id)
    assert (task["status"], task["fallback_reason"]) == ("fallback", "low_fidelity")
    assert (task["fidelity"], task["min_fidelity"]) == (0.79, 0.8)
    reply = gate.ask("hi", task_id=task_id)
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.headers["x-loragen-fallback-reason"] == "low_fidelity"
    demanded = gate.ask("hi", task_id=task_id, loragen={"mode": "compiled"})
    assert demanded.headers["x-loragen-recipe"] == task["recipe"]["id"]
    gate.generator.fidelities = (0.79, 0.8)
    assert refined(gate, task_id)["status"] == "ready"
    assert gate.ask("hi", task_id=task_id).headers["x-loragen-mode"] == "compiled"


def test_the_task_says_what_is_too_little(gate: Gateway) -> None:
    gate.generator.fidelities = (0.2, 0.5)
    task_id = gate.create(PROMPT, min_fidelity=0.5)["id"]
    assert refined(gate, task_id)["status"] == "ready"
    strict = gate.create("Strict.", policy={"fallback": "error"})["id"]
    refined(gate, strict)
    assert error_of(gate.ask("hi", task_id=strict)) == (503, "unavailable", "task_id")


def test_a_refined_recipe_outlives_a_flush_of_the_recipes(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create(PROMPT)["id"]
    recipe = refined(gate, task_id)["recipe"]["id"]
    calls = gate.generator.calls.total()
    for key in valkey.client.scan_iter(f"{gate.namespace}:recipe:*"):
        valkey.client.delete(key)
    before = gate.metric("loragen_recipe_cache_hits_total", tier="redis")

    def redis_was_asked() -> bool:
        assert recipe_used(gate, task_id) == recipe
        return gate.metric("loragen_recipe_cache_hits_total", tier="redis") > before

    wait_until(redis_was_asked)
    assert gate.generator.calls.total() == calls
    assert gate.create(PROMPT)["recipe"]["id"] == recipe


def test_a_pool_that_changed_takes_the_refined_recipe_with_it(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    refined(gate, task_id)
    gate.worker.pool_id = gate.generator.pool_id = "00" * 32
    reply = gate.ask("hi", task_id=task_id)
    assert reply.headers["x-loragen-mode"] == "compiled"
    task = shown(gate, task_id)
    assert task["recipe"]["pool_id"] == "00" * 32
    assert (task["fidelity"], task["measured"]) == (None, False)
    assert refined(gate, task_id)["fidelity"] == 0.9


def test_a_refine_for_another_pool_begins_with_what_is_compiled_for_it(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.worker.pool_id = gate.generator.pool_id = "00" * 32
    after = refined(gate, task_id)
    assert (after["refine"]["status"], after["recipe"]["pool_id"]) == ("done", "00" * 32)
    start = gate.generator.refines[-1].start
    assert start == recipe_of(PROMPT, pool_id="00" * 32).text
    assert recipe_used(gate, task_id) == after["recipe"]["id"]


def test_a_measured_recipe_that_is_compiled_again_is_still_measured(
    gate: Gateway, valkey: Valkey
) -> None:
    gate.generator.fidelities = (0.3, 0.2)
    task_id = gate.create(PROMPT)["id"]
    assert refined(gate, task_id)["fallback_reason"] == "low_fidelity"
    for key in valkey.client.scan_iter(f"{gate.namespace}:recipe:*"):
        valkey.client.delete(key)

    def is_compiled_again() -> bool:
        gate.ask("hi", task_id=task_id)
        return gate.generator.calls[PROMPT] == 2

    wait_until(is_compiled_again)
    reply = gate.ask("hi", task_id=task_id)
    assert reply.headers["x-loragen-fallback-reason"] == "low_fidelity"


def test_a_task_without_recipe_is_refined_from_nothing(gate: Gateway) -> None:
    gate.generator.error = InvalidRequest("cannot be compiled")
    task = gate.create(PROMPT)
    assert task["status"] == "fallback"
    after = refined(gate, task["id"])
    assert gate.generator.refines[0].start is None
    assert (after["status"], after["fallback_reason"], after["fidelity"]) == ("ready", None, 0.9)
    assert recipe_used(gate, task["id"]) == after["recipe"]["id"]


def test_a_refine_that_fails_says_why_and_changes_nothing(gate: Gateway) -> None:
    task = gate.create(PROMPT)
    gate.generator.refine_error = InvalidRequest("no")
    after = refined(gate, task["id"])
    assert (after["refine"]["status"], after["refine"]["reason"]) == ("failed", "invalid_request")
    assert (after["status"], after["recipe"]) == ("ready", task["recipe"])
    gate.generator.refine_error = None
    assert refined(gate, task["id"])["refine"]["status"] == "done"


def test_one_refine_of_a_task_at_a_time(gate: Gateway) -> None:
    one, two = gate.create("One.")["id"], gate.create("Two.")["id"]
    gate.generator.is_held = True
    assert refine(gate, one).status_code == 202
    assert error_of(refine(gate, one)) == (409, "conflict", None)
    assert refine(gate, two).status_code == 202
    gate.generator.is_held = False
    wait_until(lambda: shown(gate, one)["refine"]["status"] == "done")
    wait_until(lambda: shown(gate, two)["refine"]["status"] == "done")


def test_without_the_generator_it_is_503(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.generator.error = GeneratorUnavailable("gone", retry_after=1.0)
    reply = refine(gate, task_id)
    assert error_of(reply) == (503, "generator_unavailable", None)
    assert int(reply.headers["retry-after"]) >= 1
    assert shown(gate, task_id)["refine"] is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"probes": []}, "probes"),
        ({"probes": PROBES[:7]}, "probes"),
        ({"probes": [{"input": str(number)} for number in range(129)]}, "probes"),
        ({"probes": [*PROBES, PROBES[0]]}, "probes"),
        ({"probes": "x"}, "probes"),
        ({"probes": [*PROBES, "x"]}, "probes.8"),
        ({"probes": [*PROBES, {"output": "x"}]}, "probes.8.input"),
        ({"probes": [*PROBES, {"input": ""}]}, "probes.8.input"),
        ({"probes": [*PROBES, {"input": "x" * 4_001}]}, "probes.8.input"),
        ({"probes": [*PROBES, {"input": "x", "output": 5}]}, "probes.8.output"),
        ({"probes": [*PROBES, {"input": "x", "more": 5}]}, "probes.8.more"),
        ({"probes": PROBES, "steps": 5}, "steps"),
    ],
)
def test_probes_that_cannot_be_used_are_refused(
    gate: Gateway, body: dict[str, Any], param: str
) -> None:
    task_id = gate.create(PROMPT)["id"]
    reply = gate.http.post(f"/v1/tasks/{task_id}/refine", json=body)
    assert error_of(reply) == (400, "invalid_request", param)


@pytest.mark.parametrize("task_id", ["nobody", "task_" + "a" * 26])
def test_no_such_task_is_not_found(gate: Gateway, task_id: str) -> None:
    assert error_of(refine(gate, task_id)) == (404, "task_not_found", "task_id")


def test_a_model_without_generator_has_nothing_to_refine(valkey: Valkey, namespace: str) -> None:
    with gateway(redis_store(valkey.url, namespace), namespace, has_generator=False) as gate:
        task_id = gate.create(PROMPT)["id"]
        assert error_of(refine(gate, task_id)) == (400, "invalid_request", None)


def test_another_gateway_sees_it_run_and_serves_by_what_came_of_it(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    slow = {"memory_ttl_seconds": 60}
    with (
        gateway(shared[0], namespace, store=slow) as one,
        gateway(shared[1], namespace, store=slow) as two,
    ):
        task = one.create(PROMPT)
        assert recipe_used(two, task["id"]) == task["recipe"]["id"]
        one.generator.is_held = True
        refine(one, task["id"])
        assert shown(two, task["id"])["refine"] == {"status": "running"}
        assert error_of(refine(two, task["id"])) == (409, "conflict", None)
        one.generator.is_held = False
        wait_until(lambda: shown(two, task["id"])["refine"] != {"status": "running"})
        recipe = shown(one, task["id"])["recipe"]["id"]
        assert recipe != task["recipe"]["id"]
        wait_until(lambda: recipe_used(two, task["id"]) == recipe)


def test_a_gateway_that_ends_while_it_refines_leaves_a_task_that_serves(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with gateway(shared[1], namespace) as two:
        with gateway(shared[0], namespace) as one:
            task = one.create(PROMPT)
            one.generator.is_held = True
            assert refine(one, task["id"]).status_code == 202
        wait_until(lambda: shown(two, task["id"])["refine"] is None)
        assert recipe_used(two, task["id"]) == task["recipe"]["id"]
        assert refined(two, task["id"])["refine"]["status"] == "done"


def test_a_deleted_task_leaves_nothing_of_its_refine(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create(DELETED_PROMPT)["id"]
    refined(gate, task_id)
    made = recipe_of(f"refined {DELETED_PROMPT} 1")
    signs = [CANARY.encode(), task_id.encode(), expected_recipe(DELETED_PROMPT).data]
    signs += [made.data, made.id.encode()]

    def left() -> set[bytes]:
        stored = list(valkey.contents(gate.namespace))
        return {sign for sign in signs if any(sign in each for each in stored)}

    assert {CANARY.encode(), made.data} <= left()
    gate.http.delete(f"/v1/tasks/{task_id}")
    assert left() == set()
    assert task_id == tenant_keys().task_ids(edge_model=MODEL, prompt=DELETED_PROMPT)[0]


def test_a_task_deleted_while_it_is_refined_stays_deleted(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.generator.is_held = True
    refine(gate, task_id)
    gate.http.delete(f"/v1/tasks/{task_id}")
    gate.generator.is_held = False
    wait_until(lambda: not list(valkey.client.scan_iter(f"{gate.namespace}:lease:*")))
    assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 404
    again = gate.create(PROMPT)
    assert again["recipe"]["id"] == expected_recipe(PROMPT).id


def test_refines_are_counted_and_measured(gate: Gateway) -> None:
    def counted() -> tuple[float, ...]:
        return (
            gate.metric("loragen_refines_total", outcome="done"),
            gate.metric("loragen_refine_seconds_count"),
            gate.metric("loragen_task_fidelity_sum"),
        )

    before = counted()
    refined(gate, gate.create(PROMPT)["id"])
    assert [round(b - a, 3) for a, b in zip(before, counted(), strict=True)] == [1, 1, 0.9]
