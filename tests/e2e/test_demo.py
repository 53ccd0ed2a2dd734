"""What `make demo` starts: its checkpoint under its own settings, and the prompts that it shows."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.stack import ROOT, Stack, wait_until

pytestmark = pytest.mark.slow

PATIENCE = 180.0
"""Seconds; the refiner loads the edge model at its first measure."""
(EDGE,) = yaml.safe_load((ROOT / "config/demo.yaml").read_text("utf-8"))["edge_models"]
EXAMPLES: dict[str, Any] = json.loads((ROOT / "checkpoints/demo/prompts.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    paths = {name: str(ROOT / EDGE[name]) for name in ("model", "generator")}
    running = Stack(tmp_path_factory.mktemp("demo"), first=EDGE | paths, measure=True)
    try:
        running.wait_ready()
        yield running
    finally:
        running.interrupt()


def settled(stack: Stack, prompt: str) -> dict[str, Any]:
    """Register a prompt and return its task once it is measured, and refined if it will be."""
    task_id = stack.create(prompt)["id"]

    def task() -> dict[str, Any]:
        shown: dict[str, Any] = stack.http.get(f"/v1/tasks/{task_id}").json()
        return shown

    wait_until(lambda: task()["measured"], PATIENCE)
    needs = task()["agreement"] < EDGE["refine_below_agreement"]
    if task()["fallback_reason"] == "low_fidelity" or (task()["status"] == "ready" and needs):
        ends = ("done", "kept", "failed")
        wait_until(lambda: (task()["refine"] or {}).get("status") in ends, PATIENCE)
    return task()


@pytest.mark.parametrize("example", EXAMPLES["works"], ids=lambda each: each["question"])
def test_a_prompt_that_works_is_answered_without_it(demo: Stack, example: dict[str, str]) -> None:
    task = settled(demo, example["system_prompt"])
    assert (task["status"], task["refine"]) == ("ready", None), task
    reply = demo.ask(example["question"], task["id"])
    assert reply.headers["x-loragen-mode"] == "compiled"
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]


def test_the_one_to_be_refined_is_and_then_works(demo: Stack) -> None:
    example = EXAMPLES["refined"]
    task = settled(demo, example["system_prompt"])
    assert (task["refine"] or {}).get("status") == "done", task
    reply = demo.ask(example["question"], task["id"])
    assert reply.headers["x-loragen-mode"] == "compiled"
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]


def test_the_one_that_falls_back_is_answered_with_its_prompt(demo: Stack) -> None:
    example = EXAMPLES["fallback"]
    task = settled(demo, example["system_prompt"])
    reply = demo.ask(example["question"], task["id"])
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.headers["x-loragen-fallback-reason"] == example["reason"]
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]
