"""Measuring through the wire: what a recipe is worth decides whether it serves."""

from collections.abc import Iterator
from typing import Any

import pytest

from loragen.errors import EdgeModelNotFound, GeneratorUnavailable, InvalidRequest, NotFound
from tests.fakes.gateway import (
    MODEL,
    Gateway,
    expected_recipe,
    gateway,
    redis_shared,
    redis_store,
)
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "Answer in verse."
PROBES: list[dict[str, Any]] = [{"input": f"Question {number}?"} for number in range(8)]
ON = {"measure": True}
MANUAL = {"policy": {"refine": "manual"}}


@pytest.fixture
def gate(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    with gateway(redis_store(valkey.url, namespace), namespace, server=ON) as gate:
        yield gate


def shown(gate: Gateway, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = gate.http.get(f"/v1/tasks/{task_id}").json()
    return task


def measured(gate: Gateway, task_id: str) -> dict[str, Any]:
    wait_until(lambda: shown(gate, task_id)["measured"])
    return shown(gate, task_id)


def mode(gate: Gateway, task_id: str) -> tuple[str, str | None]:
    headers = gate.ask("hi", task_id=task_id).headers
    return headers["x-loragen-mode"], headers.get("x-loragen-fallback-reason")


def held_measure(gate: Gateway, **fields: Any) -> str:
    """Create a task whose measure has begun and waits, and return its id."""
    gate.generator.is_measuring_held = True
    task_id: str = gate.create(PROMPT, **fields)["id"]
    wait_until(lambda: len(gate.generator.measures) == 1)
    return task_id


def test_a_new_task_serves_at_once_and_is_measured_behind_it(gate: Gateway) -> None:
    gate.generator.is_measuring_held = True
    task = gate.create(PROMPT)
    assert (task["status"], task["fidelity"], task["measured"]) == ("ready", None, False)
    assert mode(gate, task["id"]) == ("compiled", None)
    gate.generator.is_measuring_held = False
    after = measured(gate, task["id"])
    assert (after["fidelity"], after["agreement"], after["status"]) == (0.9, 1.0, "ready")
    (asked,) = gate.generator.measures
    assert (asked.prompt, asked.probes) == (PROMPT, None)
    assert asked.recipe == expected_recipe(PROMPT).text


def test_a_recipe_worth_too_little_gives_way_to_the_prompt(gate: Gateway) -> None:
    gate.generator.measured = (0.79, 0.5)
    task = measured(gate, gate.create(PROMPT, **MANUAL)["id"])
    assert (task["status"], task["fallback_reason"]) == ("fallback", "low_fidelity")
    assert mode(gate, task["id"]) == ("prompt", "low_fidelity")
    assert not gate.generator.refines


def test_it_is_refined_by_itself_and_serves_once_it_is_better(gate: Gateway) -> None:
    gate.generator.measured = (0.3, 0.5)
    gate.generator.fidelities = (0.3, 0.95)
    task_id = gate.create(PROMPT)["id"]
    wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
    task = shown(gate, task_id)
    assert (task["status"], task["fidelity"]) == ("ready", 0.95)
    assert mode(gate, task_id) == ("compiled", None)
    (asked,) = gate.generator.refines
    assert asked.probes is None


def test_one_that_refining_does_not_mend_stays_in_context_and_is_left_alone(gate: Gateway) -> None:
    gate.generator.measured = (0.3, 0.5)
    gate.generator.fidelities = (0.3, 0.6)
    task_id = gate.create(PROMPT)["id"]
    wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
    assert mode(gate, task_id) == ("prompt", "low_fidelity")
    assert (len(gate.generator.measures), len(gate.generator.refines)) == (1, 1)


@pytest.mark.parametrize(("after", "kept"), [(0.97, 0.97), (0.85, 0.92)])
def test_one_that_serves_is_refined_too_where_the_model_asks_it_and_the_better_serves(
    valkey: Valkey, namespace: str, after: float, kept: float
) -> None:
    store = redis_store(valkey.url, namespace)
    edge = {"min_agreement": 0.75, "refine_below_agreement": 0.9}
    with gateway(store, namespace, server=ON, edge=edge) as gate:
        gate.generator.measured = (0.92, 0.8)
        gate.generator.fidelities = (0.9, after)
        task_id = gate.create(PROMPT)["id"]
        wait_until(lambda: shown(gate, task_id)["refine"] is not None)
        wait_until(lambda: shown(gate, task_id)["refine"]["status"] != "running")
        assert shown(gate, task_id)["fidelity"] == kept
        assert mode(gate, task_id) == ("compiled", None)
        gate.generator.measured = (0.92, 0.9)
        other = gate.create("Be odd.")["id"]
        measured(gate, other)
        assert shown(gate, other)["refine"] is None
        assert len(gate.generator.refines) == 1


def test_with_probes_a_task_waits_for_its_measure(gate: Gateway) -> None:
    task = gate.create(PROMPT, probes=PROBES)
    assert (task["status"], task["fidelity"], task["measured"]) == ("ready", 0.9, True)
    (asked,) = gate.generator.measures
    assert [probe.input for probe in asked.probes or ()] == [probe["input"] for probe in PROBES]


def test_until_it_is_measured_a_task_with_probes_answers_with_its_prompt(gate: Gateway) -> None:
    gate.generator.is_measuring_held = True
    task_id = gate.create(PROMPT, probes=PROBES, wait=False)["id"]
    wait_until(lambda: len(gate.generator.measures) == 1)
    task = shown(gate, task_id)
    assert (task["status"], task["fallback_reason"]) == ("fallback", "not_measured")
    assert mode(gate, task_id) == ("prompt", "not_measured")
    assert len(gate.generator.measures) == 1
    gate.generator.is_measuring_held = False
    wait_until(lambda: mode(gate, task_id) == ("compiled", None))


def test_the_probes_of_a_task_refine_it_too(gate: Gateway) -> None:
    gate.generator.measured = (0.3, 0.5)
    task_id = gate.create(PROMPT, probes=PROBES)["id"]
    wait_until(lambda: len(gate.generator.refines) == 1)
    assert [probe.input for probe in gate.generator.refines[0].probes or ()] == [
        probe["input"] for probe in PROBES
    ]
    wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")


def test_other_probes_for_a_known_prompt_are_a_conflict(gate: Gateway) -> None:
    task = gate.create(PROMPT, probes=PROBES)
    assert gate.create(PROMPT, probes=PROBES)["id"] == task["id"]
    assert gate.create(PROMPT)["id"] == task["id"]
    body = {"model": MODEL, "system_prompt": PROMPT, "probes": [{"input": "x"}, *PROBES]}
    reply = gate.http.post("/v1/tasks", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (409, "probes")


def test_where_the_prompt_shows_no_effect_it_stays_in_context(gate: Gateway) -> None:
    """Its rule may be one that the probes do not touch: nothing is known of the recipe."""
    gate.generator.measured = (None, 1.0)
    task = measured(gate, gate.create(PROMPT)["id"])
    assert (task["fidelity"], task["agreement"]) == (None, 1.0)
    assert mode(gate, task["id"]) == ("prompt", "prompt_has_no_effect")
    assert not gate.generator.refines


def test_a_model_that_does_not_know_what_to_say_keeps_its_prompt(
    valkey: Valkey, namespace: str
) -> None:
    """However faithful the recipe is, and refining could not help."""
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, server=ON, edge={"max_doubt": 0.05}) as gate:
        unsure = gate.metric("loragen_measures_total", outcome="unsure")
        gate.generator.measured, gate.generator.doubt = (0.3, 0.0), 0.0501
        for prompt in ("Be odd.", "Be even."):
            task = measured(gate, gate.create(prompt)["id"])
            assert (task["status"], task["fallback_reason"]) == ("fallback", "model_unsure")
            assert (task["fidelity"], task["doubt"]) == (gate.generator.measured[0], 0.0501)
            assert mode(gate, task["id"]) == ("prompt", "model_unsure")
            gate.generator.measured = (1.0, 1.0)
        assert not gate.generator.refines
        wait_until(lambda: gate.metric("loragen_measures_total", outcome="unsure") == unsure + 2)
        gate.generator.doubt = 0.05
        sure = measured(gate, gate.create(PROMPT)["id"])
        assert mode(gate, sure["id"]) == ("compiled", None)


def test_answers_that_are_not_the_prompts_word_for_word_withhold_a_recipe(
    valkey: Valkey, namespace: str
) -> None:
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, server=ON, edge={"min_agreement": 0.75}) as gate:
        gate.generator.measured = (0.98, 0.7)
        low = measured(gate, gate.create("Be odd.", **MANUAL)["id"])
        assert (low["status"], low["fallback_reason"]) == ("fallback", "low_fidelity")
        assert mode(gate, low["id"]) == ("prompt", "low_fidelity")
        gate.create("Be even.")
        wait_until(lambda: len(gate.generator.refines) == 1)
        gate.generator.measured = (0.98, 0.75)
        high = measured(gate, gate.create(PROMPT)["id"])
        assert mode(gate, high["id"]) == ("compiled", None)


def test_refining_is_judged_by_the_gate_before_fidelity(valkey: Valkey, namespace: str) -> None:
    """One wrong token costs little fidelity: the recipe that mends it may have a little less."""
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, server=ON, edge={"min_agreement": 0.75}) as gate:
        gate.generator.measured, gate.generator.fidelities = (1.0, 0.7), (1.0, 0.99)
        task_id = gate.create(PROMPT)["id"]
        wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
        assert mode(gate, task_id) == ("compiled", None)
        gate.generator.fidelities = (0.9, 0.95)
        gate.http.post(f"/v1/tasks/{task_id}/refine", json={})
        wait_until(lambda: len(gate.generator.refines) == 2)
        wait_until(lambda: shown(gate, task_id)["refine"]["fidelity_before"] == 0.9)
        assert mode(gate, task_id) == ("compiled", None)


def test_a_recipe_of_a_prompt_that_was_misread_is_refined_only_when_somebody_asks(
    gate: Gateway,
) -> None:
    gate.generator.measured, gate.generator.does_harm = (0.0, 0.0), True
    task_id = gate.create(PROMPT)["id"]
    measured(gate, task_id)
    assert mode(gate, task_id) == ("prompt", "low_fidelity")
    gate.generator.does_harm = False
    gate.generator.measured = (0.3, 0.5)
    gate.create("Be odd.")
    wait_until(lambda: len(gate.generator.refines) == 1)  # the other's; measures come in order
    assert shown(gate, task_id)["refine"] is None
    assert gate.http.post(f"/v1/tasks/{task_id}/refine", json={}).status_code == 202


def test_harm_on_the_clients_probes_is_refined_by_itself(gate: Gateway) -> None:
    """What clients ask is worth fitting."""
    gate.generator.measured, gate.generator.does_harm = (0.0, 0.0), True
    gate.generator.fidelities = (0.0, 0.95)
    task_id = gate.create(PROMPT, probes=PROBES)["id"]
    wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
    assert mode(gate, task_id) == ("compiled", None)
    (asked,) = gate.generator.refines
    assert [probe.input for probe in asked.probes or ()] == [probe["input"] for probe in PROBES]
    refined, harmful = shown(gate, task_id)["measures"]
    assert (harmful["by"], harmful["does_harm"], refined["by"]) == ("measure", True, "refine")


def test_what_refining_finds_of_the_models_doubt_counts_too(valkey: Valkey, namespace: str) -> None:
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, edge={"max_doubt": 0.05}) as gate:
        gate.generator.doubt = 0.2
        task_id = gate.create(PROMPT)["id"]
        gate.http.post(f"/v1/tasks/{task_id}/refine", json={})
        wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
        assert mode(gate, task_id) == ("prompt", "model_unsure")


def test_what_cannot_be_measured_is_tried_once_and_stays_in_context(gate: Gateway) -> None:
    gate.generator.measure_error = InvalidRequest("too few messages")
    task_id = gate.create(PROMPT)["id"]
    wait_until(lambda: mode(gate, task_id) == ("prompt", "not_measured"))
    for _ in range(3):
        assert mode(gate, task_id) == ("prompt", "not_measured")
    assert len(gate.generator.measures) == 1
    task = shown(gate, task_id)
    assert (task["status"], task["measured"]) == ("fallback", False)


@pytest.mark.parametrize("error", [EdgeModelNotFound("not here"), NotFound("an older version")])
def test_where_nothing_measures_tasks_serve_as_they_did(gate: Gateway, error: Exception) -> None:
    gate.generator.measure_error = error
    failed = gate.metric("loragen_measures_total", outcome="failed")
    task_id = gate.create(PROMPT)["id"]
    wait_until(lambda: gate.metric("loragen_measures_total", outcome="failed") == failed + 1)
    assert mode(gate, task_id) == ("compiled", None)
    assert shown(gate, task_id)["status"] == "ready"


@pytest.mark.parametrize("measured_as", [(0.1, 0.0), (None, 0.0)])
def test_a_task_that_asks_for_nothing_is_served_whatever_it_is_worth(
    gate: Gateway, measured_as: tuple[float | None, float]
) -> None:
    gate.generator.measured = measured_as
    task_id = gate.create(PROMPT, min_fidelity=0)["id"]
    measured(gate, task_id)
    assert mode(gate, task_id) == ("compiled", None)
    assert not gate.generator.refines


def test_harm_is_counted(gate: Gateway) -> None:
    gate.generator.measured, gate.generator.does_harm = (0.0, 0.0), True
    before = gate.metric("loragen_negative_transfer_total")
    low = gate.metric("loragen_measures_total", outcome="low")
    measured(gate, gate.create(PROMPT, **MANUAL)["id"])
    assert gate.metric("loragen_negative_transfer_total") == before + 1
    wait_until(lambda: gate.metric("loragen_measures_total", outcome="low") == low + 1)


def test_a_new_pool_brings_a_new_measure(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    measured(gate, task_id)
    gate.worker.pool_id = gate.generator.pool_id = "00" * 32
    gate.generator.measured = (0.85, 0.9)
    gate.ask("hi", task_id=task_id)
    wait_until(lambda: shown(gate, task_id)["fidelity"] == 0.85)


def test_a_bad_recipe_is_served_until_its_first_measure_and_by_no_gateway_after_it(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with (
        gateway(shared[0], namespace, server=ON) as one,
        gateway(shared[1], namespace, server=ON) as two,
    ):
        one.generator.is_measuring_held = True
        one.generator.measured, one.generator.does_harm = (0.0, 0.0), True
        harmed = one.metric("loragen_demotions_total", cause="harm")
        task_id = one.create(PROMPT, **MANUAL)["id"]
        for gate in (one, two):
            assert mode(gate, task_id) == ("compiled", None)
        one.generator.is_measuring_held = False
        wait_until(lambda: mode(two, task_id) == ("prompt", "low_fidelity"))
        assert one.metric("loragen_demotions_total", cause="harm") == harmed + 1
        for gate in (one, two, one, two):
            assert mode(gate, task_id) == ("prompt", "low_fidelity")
        assert len(one.generator.measures) + len(two.generator.measures) == 1
        (found,) = shown(one, task_id)["measures"]
        assert (found["by"], found["fidelity"], found["does_harm"]) == ("measure", 0.0, True)


def test_a_new_recipe_of_a_demoted_task_must_pass_before_it_serves(gate: Gateway) -> None:
    gate.generator.measured = (0.3, 0.5)
    task_id = gate.create(PROMPT, **MANUAL)["id"]
    old = measured(gate, task_id)["recipe"]["id"]
    promoted = gate.metric("loragen_promotions_total", cause="measure")
    gate.generator.is_measuring_held = True
    gate.worker.pool_id = gate.generator.pool_id = "00" * 32
    demand = gate.ask("hi", task_id=task_id, loragen={"mode": "compiled"})
    assert demand.headers["x-loragen-recipe"] != old
    assert mode(gate, task_id) == ("prompt", "not_measured")
    gate.generator.measured = (0.9, 1.0)
    gate.generator.is_measuring_held = False
    wait_until(lambda: mode(gate, task_id) == ("compiled", None))
    assert gate.metric("loragen_promotions_total", cause="measure") == promoted + 1
    newest, oldest = shown(gate, task_id)["measures"]
    assert (newest["fidelity"], oldest["fidelity"]) == (0.9, 0.3)
    assert old.startswith(oldest["recipe"])


def test_refining_promotes_a_task_and_its_measures_are_kept(gate: Gateway) -> None:
    gate.generator.measured, gate.generator.fidelities = (0.3, 0.5), (0.3, 0.95)
    promoted = gate.metric("loragen_promotions_total", cause="refine")
    task_id = gate.create(PROMPT)["id"]
    wait_until(
        lambda: mode(gate, task_id) == ("compiled", None) and len(gate.generator.refines) > 0
    )
    wait_until(lambda: len(shown(gate, task_id)["measures"]) == 2)
    measures = shown(gate, task_id)["measures"]
    assert [(each["by"], each["fidelity"]) for each in measures] == [
        ("refine", 0.95), ("measure", 0.3)
    ]  # fmt: skip
    assert all(each["at"] > 1.7e9 for each in measures)
    wait_until(lambda: gate.metric("loragen_promotions_total", cause="refine") == promoted + 1)


def test_two_gateways_measure_a_task_once(valkey: Valkey, namespace: str) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with (
        gateway(shared[0], namespace, server=ON) as one,
        gateway(shared[1], namespace, server=ON) as two,
    ):
        task_id = held_measure(one, probes=PROBES, wait=False)
        assert mode(two, task_id) == ("prompt", "not_measured")
        one.generator.is_measuring_held = False
        wait_until(lambda: mode(two, task_id) == ("compiled", None))
        assert len(two.generator.measures) == 0


def test_a_gateway_that_ends_while_it_measures_leaves_it_to_another(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with gateway(shared[1], namespace, server=ON) as two:
        with gateway(shared[0], namespace, server=ON) as one:
            task_id = held_measure(one, probes=PROBES, wait=False)
        wait_until(lambda: mode(two, task_id) == ("compiled", None))
        assert len(two.generator.measures) == 1


def test_a_measure_that_died_with_its_gateway_is_taken_up_by_the_next_request(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with gateway(shared[1], namespace, server=ON) as two:
        with gateway(shared[0], namespace, server=ON) as one:
            task_id = held_measure(one, **MANUAL)
            assert mode(two, task_id) == ("compiled", None)  # it is asked for while it is measured
        wait_until(lambda: not list(valkey.client.scan_iter(f"{namespace}:lease:measure:*")))
        two.generator.measured = (0.3, 0.5)
        assert mode(two, task_id) == ("compiled", None)  # nothing is known of it yet
        wait_until(lambda: mode(two, task_id) == ("prompt", "low_fidelity"))
        assert len(two.generator.measures) == 1


def test_of_two_measures_after_a_lost_lease_the_first_counts(
    valkey: Valkey, namespace: str
) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with (
        gateway(shared[0], namespace, server=ON) as one,
        gateway(shared[1], namespace, server=ON) as two,
    ):
        one.generator.measured, one.generator.does_harm = (0.0, 0.0), True
        harmed = one.metric("loragen_negative_transfer_total")
        ended = one.metric("loragen_measure_seconds_count")
        task_id = held_measure(one, **MANUAL)
        for lease in valkey.client.scan_iter(f"{namespace}:lease:measure:*"):
            valkey.client.delete(lease)
        assert mode(two, task_id) == ("compiled", None)
        assert measured(two, task_id)["fidelity"] == 0.9
        one.generator.is_measuring_held = False
        wait_until(lambda: one.metric("loragen_measure_seconds_count") == ended + 2)
        assert [each["fidelity"] for each in shown(one, task_id)["measures"]] == [0.9]
        assert one.metric("loragen_negative_transfer_total") == harmed
        assert mode(one, task_id) == ("compiled", None)


def test_a_prompt_that_came_by_itself_is_measured_before_it_is_used(
    valkey: Valkey, namespace: str
) -> None:
    auto = {"min_prompt_tokens": 2}
    shared = redis_shared(valkey.url, namespace, **auto)
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "hi"}]
    with gateway(shared, namespace, server=ON, auto=auto) as gate:
        gate.generator.is_measuring_held = True

        def reason() -> str | None:
            body = {"model": MODEL, "messages": messages}
            reply = gate.http.post("/v1/chat/completions", json=body)
            said: str | None = reply.headers.get("x-loragen-fallback-reason")
            return said

        wait_until(lambda: reason() == "not_measured")
        gate.generator.is_measuring_held = False
        wait_until(lambda: reason() is None)


def test_a_refiner_that_is_away_is_asked_again(gate: Gateway) -> None:
    gate.generator.measure_error = GeneratorUnavailable("gone", retry_after=1.0)
    task = gate.create(PROMPT)
    wait_until(lambda: len(gate.generator.measures) == 1)
    assert mode(gate, task["id"]) == ("compiled", None)
    gate.generator.measure_error = None
    assert measured(gate, task["id"])["fidelity"] == 0.9


def test_a_task_deleted_while_it_is_measured_stays_deleted(gate: Gateway, valkey: Valkey) -> None:
    gate.generator.is_measuring_held = True
    task_id = gate.create(PROMPT)["id"]
    wait_until(lambda: len(gate.generator.measures) == 1)
    gate.http.delete(f"/v1/tasks/{task_id}")
    gate.generator.is_measuring_held = False
    wait_until(lambda: not list(valkey.client.scan_iter(f"{gate.namespace}:lease:*")))
    assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 404
