"""Shadowing through the wire: live messages measure recipes, behind the answers and in memory."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.gateway import Gateway, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "Answer in verse."
ON: dict[str, Any] = {
    "server": {"measure": True},
    "shadow": {"share": 1.0, "per_minute": 1_000, "messages": 8},
}
CANARY = "a live message that nobody else may read"


@pytest.fixture
def gate(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    with gateway(redis_store(valkey.url, namespace), namespace, **ON) as gate:
        yield gate


def measured_task(gate: Gateway, **fields: Any) -> str:
    """Return a task whose recipe has passed."""
    task_id: str = gate.create(PROMPT, **fields)["id"]
    wait_until(lambda: shown(gate, task_id)["measured"])
    return task_id


def shown(gate: Gateway, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = gate.http.get(f"/v1/tasks/{task_id}").json()
    return task


def mode(gate: Gateway, task_id: str) -> str:
    # System text beside the task: such a request is not sampled itself.
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]
    body = {"model": "demo", "messages": messages, "task_id": task_id}
    found: str = gate.http.post("/v1/chat/completions", json=body).headers["x-loragen-mode"]
    return found


def ask(gate: Gateway, task_id: str, count: int, **fields: Any) -> list[str]:
    """Ask so many different questions and return them."""
    asked = [f"{CANARY} {number}" for number in range(count)]
    for text in asked:
        assert gate.ask(text, task_id=task_id, **fields).status_code == 200
    return asked


def taken(gate: Gateway, outcome: str = "taken") -> float:
    return gate.metric("loragen_shadow_messages_total", outcome=outcome)


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_drift_of_live_requests_demotes_a_task(gate: Gateway, fields: dict[str, Any]) -> None:
    task_id = measured_task(gate, policy={"refine": "manual"})
    assert mode(gate, task_id) == "hybrid"
    drifted = gate.metric("loragen_demotions_total", cause="drift")
    gate.generator.measured = (0.2, 0.1)
    asked = ask(gate, task_id, 8, **fields)
    wait_until(lambda: mode(gate, task_id) == "prompt")
    assert [probe.input for probe in gate.generator.measures[-1].probes or ()] == asked
    wait_until(lambda: gate.metric("loragen_demotions_total", cause="drift") == drifted + 1)
    newest, oldest = shown(gate, task_id)["measures"]
    assert (newest["by"], newest["fidelity"], oldest["by"]) == ("shadow", 0.2, "measure")


def test_what_drifted_is_refined_on_the_live_messages_and_promoted(gate: Gateway) -> None:
    task_id = measured_task(gate)
    gate.generator.measured, gate.generator.fidelities = (0.2, 0.1), (0.2, 0.9)
    asked = ask(gate, task_id, 8)
    wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
    assert [probe.input for probe in gate.generator.refines[0].probes or ()] == asked
    wait_until(lambda: mode(gate, task_id) == "hybrid")


def test_harm_on_live_messages_is_refined_by_itself(gate: Gateway) -> None:
    task_id = measured_task(gate)
    gate.generator.measured, gate.generator.does_harm = (0.0, 0.0), True
    gate.generator.fidelities = (0.0, 0.95)
    asked = ask(gate, task_id, 8)
    wait_until(lambda: (shown(gate, task_id)["refine"] or {}).get("status") == "done")
    (refine,) = gate.generator.refines
    assert [probe.input for probe in refine.probes or ()] == asked
    harmful = shown(gate, task_id)["measures"][1]
    assert (harmful["by"], harmful["does_harm"]) == ("shadow", True)
    wait_until(lambda: mode(gate, task_id) == "hybrid")


def test_live_requests_promote_a_task_that_made_up_messages_held_back(gate: Gateway) -> None:
    gate.generator.measured = (0.2, 0.1)
    task_id = measured_task(gate, policy={"refine": "manual"})
    assert mode(gate, task_id) == "prompt"
    gate.generator.measured = (0.9, 1.0)
    ask(gate, task_id, 8)
    wait_until(lambda: mode(gate, task_id) == "hybrid")


def test_live_messages_that_the_prompt_does_not_touch_change_nothing(gate: Gateway) -> None:
    task_id = measured_task(gate)
    gate.generator.measured = (None, 1.0)
    failed = gate.metric("loragen_measures_total", outcome="failed")
    ask(gate, task_id, 8)
    wait_until(lambda: gate.metric("loragen_measures_total", outcome="failed") == failed + 1)
    assert mode(gate, task_id) == "hybrid"
    assert len(shown(gate, task_id)["measures"]) == 1


def test_answers_wait_for_no_measure_and_no_message_is_stored(
    gate: Gateway, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    task_id = measured_task(gate)
    gate.generator.is_measuring_held = True
    ask(gate, task_id, 8)
    wait_until(lambda: len(gate.generator.measures) == 2)
    assert gate.ask("while it is measured", task_id=task_id).status_code == 200
    stored = b"".join(valkey.contents(gate.namespace))
    assert PROMPT.encode() in stored
    assert CANARY.encode() not in stored
    gate.generator.is_measuring_held = False
    wait_until(lambda: len(shown(gate, task_id)["measures"]) == 2)
    assert CANARY not in caplog.text
    assert CANARY not in str(shown(gate, task_id))


def test_the_budget_of_a_tenants_minute_holds(valkey: Valkey, namespace: str) -> None:
    shadow = {**ON["shadow"], "per_minute": 7}
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, server=ON["server"], shadow=shadow) as gate:
        task_id = measured_task(gate)
        before = taken(gate), taken(gate, "over_budget")
        ask(gate, task_id, 20)
        wait_until(lambda: taken(gate, "over_budget") == before[1] + 13)
        assert taken(gate) == before[0] + 7
        assert len(gate.generator.measures) == 1


@pytest.mark.parametrize("off", ["share", "policy"])
def test_nothing_is_sampled_unless_operator_and_tenant_want_it(
    valkey: Valkey, namespace: str, off: str
) -> None:
    shadow = {} if off == "share" else ON["shadow"]
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, server=ON["server"], shadow=shadow) as gate:
        policy = {"shadow": "never"} if off == "policy" else {}
        task_id = measured_task(gate, policy=policy)
        before = taken(gate) + taken(gate, "over_budget")
        ask(gate, task_id, 10)
        assert taken(gate) + taken(gate, "over_budget") == before
        assert len(gate.generator.measures) == 1


def test_only_whole_requests_of_one_message_are_sampled(gate: Gateway) -> None:
    task_id = measured_task(gate)
    before = taken(gate)
    said = {"role": "assistant", "content": "hello"}
    user = {"role": "user", "content": CANARY}
    for messages in ([user, said, user], [{"role": "system", "content": "x"}, user]):
        body = {"model": "demo", "messages": messages, "task_id": task_id}
        assert gate.http.post("/v1/chat/completions", json=body).status_code == 200
    assert gate.ask("x" * 4_001, task_id=task_id).status_code == 200
    assert taken(gate) == before
