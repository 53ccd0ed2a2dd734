"""Measures and refines that found the refiner away, or failing, say nothing of their tasks."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from loragen.errors import (
    DeadlineExceeded,
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    RecipeInvalid,
    Unauthorized,
)
from tests.fakes.gateway import Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "Answer in verse."
ON = {"measure": True}


@pytest.fixture
def gates(valkey: Valkey, namespace: str) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways: the second has not looked after any task yet."""
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with (
        gateway(shared[0], namespace, server=ON) as one,
        gateway(shared[1], namespace, server=ON) as two,
    ):
        one.generator.measured = two.generator.measured = (0.3, 0.5)
        yield one, two


def shown(gate: Gateway, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = gate.http.get(f"/v1/tasks/{task_id}").json()
    return task


def mode(gate: Gateway, task_id: str) -> str:
    found: str = gate.ask("hi", task_id=task_id).headers["x-loragen-mode"]
    return found


def refined_as(gate: Gateway, task_id: str) -> str | None:
    status: str | None = (shown(gate, task_id)["refine"] or {}).get("status")
    return status


@pytest.mark.parametrize("error", [LoragenError("the refiner failed"), Unauthorized("rotated")])
def test_a_refiner_that_fails_is_no_verdict_on_a_task(
    gates: tuple[Gateway, Gateway], error: Exception
) -> None:
    one, two = gates
    one.generator.measure_error = error
    failed = one.metric("loragen_measures_total", outcome="failed")
    task_id = one.create(PROMPT)["id"]
    wait_until(lambda: one.metric("loragen_measures_total", outcome="failed") == failed + 1)
    assert mode(one, task_id) == "compiled"
    two.generator.measured = (0.9, 1.0)
    wait_until(lambda: mode(two, task_id) and shown(two, task_id)["fidelity"] == 0.9)


def test_a_measure_that_fails_is_not_tried_at_every_request(gates: tuple[Gateway, Gateway]) -> None:
    one, _ = gates
    one.generator.measure_error = LoragenError("the refiner failed")
    probes = [{"input": f"Question {number}?"} for number in range(8)]
    task_id = one.create(PROMPT, probes=probes)["id"]
    for _ in range(20):
        assert mode(one, task_id) == "prompt"
    time.sleep(0.2)
    assert len(one.generator.measures) <= 2  # the first, and one that a request has begun


def test_a_recipe_that_the_refiner_cannot_read_is_a_verdict(
    gates: tuple[Gateway, Gateway],
) -> None:
    one, two = gates
    one.generator.measure_error = RecipeInvalid("not these")
    task_id = one.create(PROMPT)["id"]
    wait_until(lambda: mode(one, task_id) == "prompt")
    assert mode(two, task_id) == "prompt"
    assert not two.generator.measures


@pytest.mark.parametrize("error", [GeneratorUnavailable("away"), Overloaded("full")])
def test_a_refine_that_found_the_refiner_away_is_begun_again(
    gates: tuple[Gateway, Gateway], error: Exception
) -> None:
    one, two = gates
    one.generator.refine_error = error
    task_id = one.create(PROMPT)["id"]
    wait_until(lambda: refined_as(one, task_id) == "failed")
    two.generator.fidelities = (0.3, 0.95)
    assert mode(two, task_id) == "prompt"
    wait_until(lambda: refined_as(two, task_id) == "done")
    assert mode(two, task_id) == "compiled"


def test_a_refine_that_died_with_its_gateway_is_begun_again(valkey: Valkey, namespace: str) -> None:
    shared = redis_shared(valkey.url, namespace), redis_shared(valkey.url, namespace)
    with gateway(shared[0], namespace, server=ON) as one:
        one.generator.measured, one.generator.is_measuring_held = (0.3, 0.5), True
        task_id = one.create(PROMPT)["id"]
        one.generator.is_held, one.generator.is_measuring_held = True, False
        wait_until(lambda: one.generator.refines)
    with gateway(shared[1], namespace, server=ON) as two:
        two.generator.fidelities = (0.3, 0.95)
        assert mode(two, task_id) == "prompt"
        wait_until(lambda: refined_as(two, task_id) == "done")


def test_a_refine_that_took_too_long_or_brought_nothing_is_not_begun_again(
    gates: tuple[Gateway, Gateway],
) -> None:
    one, two = gates
    one.generator.refine_error = DeadlineExceeded("300 s")
    slow = one.create(PROMPT)["id"]
    wait_until(lambda: refined_as(one, slow) == "failed")
    one.generator.refine_error = None
    one.generator.fidelities = (0.3, 0.2)
    kept = one.create("Answer in prose.")["id"]
    wait_until(lambda: refined_as(one, kept) == "kept")
    one.generator.refine_error = GeneratorUnavailable("away")
    lost = one.create("Answer in rhyme.")["id"]
    wait_until(lambda: refined_as(one, lost) == "failed")
    assert [mode(two, each) for each in (slow, kept, lost)] == ["prompt"] * 3
    wait_until(lambda: len(two.generator.refines) > 0)
    assert [asked.prompt for asked in two.generator.refines] == ["Answer in rhyme."]
