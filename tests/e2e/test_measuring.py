"""Measuring on the real stack: messages that the real edge model makes up decide what serves."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.stack import CHECKPOINT, Stack, wait_until

pytestmark = pytest.mark.slow

PATIENCE = 120.0
"""Seconds; the refiner loads the edge model at its first measure."""


EXAMPLES: dict[str, Any] = json.loads((CHECKPOINT / "prompts.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack that measures every recipe."""
    running = Stack(tmp_path_factory.mktemp("measuring"), measure=True)
    try:
        running.wait_ready()
        yield running
    finally:
        running.interrupt()


def shown(stack: Stack, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = stack.http.get(f"/v1/tasks/{task_id}").json()
    return task


def test_a_good_recipe_is_measured_to_be_good(stack: Stack) -> None:
    example = EXAMPLES["works"][2]
    task_id = stack.create(example["system_prompt"] + " Be kind.")["id"]
    wait_until(lambda: shown(stack, task_id)["measured"], PATIENCE)
    task = shown(stack, task_id)
    assert task["fidelity"] >= 0.8
    assert task["status"] == "ready"


def test_one_worth_too_little_is_refined_and_then_serves(stack: Stack) -> None:
    example = EXAMPLES["refined"]
    task_id = stack.create(example["system_prompt"])["id"]
    wait_until(lambda: (shown(stack, task_id)["refine"] or {}).get("status") == "done", PATIENCE)
    task = shown(stack, task_id)
    assert task["refine"]["fidelity_before"] < task["refine"]["fidelity_after"]
    assert task["status"] == "ready"
    assert task["fidelity"] == pytest.approx(task["refine"]["fidelity_after"], abs=1e-3)
    reply = stack.ask(example["question"], task_id)
    assert reply.headers["x-loragen-recipe"] == task["recipe"]["id"]
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]


def test_with_probes_of_its_own_a_task_is_ready_once_it_is_measured(stack: Stack) -> None:
    example = EXAMPLES["works"][1]
    items = ("fox", "table", "drum", "saw", "hat", "cake", "lamp", "sofa")
    probes = [{"input": f"My {item} was terrible."} for item in items]
    task = stack.create(example["system_prompt"] + " Thank you.", probes=probes)
    assert task["measured"], task
    assert (task["status"] == "ready") is (task["fidelity"] >= task["min_fidelity"])
