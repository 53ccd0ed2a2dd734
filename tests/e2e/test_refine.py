"""Refining on the real stack: the refiner's actor, the edge model, the worker that serves it."""

from random import Random
from typing import Any

from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from tests.e2e.stack import Stack, wait_until

QUESTIONS = 24


def test_a_task_is_refined_on_probes_and_serves_on(stack: Stack) -> None:
    prompt = SMALL.draw(SMALL.seen[-1], Split.UNSEEN_PROMPTS, 7)
    asked = [prompt.ask(Random(number)) for number in range(400)]
    questions = list(dict.fromkeys(each.question for each in asked))[:QUESTIONS]
    assert len(questions) == QUESTIONS
    task = stack.create(prompt.text)
    path = f"/v1/tasks/{task['id']}"
    probes = [{"input": question} for question in questions]
    reply = stack.http.post(f"{path}/refine", json={"probes": probes})
    assert reply.status_code == 202, reply.text
    assert stack.ask(questions[0], task["id"]).headers["x-loragen-mode"] == "compiled"
    wait_until(lambda: stack.http.get(path).json()["refine"] != {"status": "running"}, 60)
    after: dict[str, Any] = stack.http.get(path).json()
    outcome = after["refine"]
    assert outcome["status"] in ("done", "kept"), outcome
    assert (outcome["probes"], outcome["held_out"]) == (QUESTIONS, QUESTIONS // 4)
    assert after["measured"]
    better = outcome["fidelity_after"] > outcome["fidelity_before"]
    assert (outcome["status"] == "done") is better
    assert (after["recipe"]["id"] != task["recipe"]["id"]) is better
    answer = stack.ask(questions[0], task["id"])
    if after["status"] == "ready":
        assert answer.headers["x-loragen-recipe"] == after["recipe"]["id"]
    else:
        reason = answer.headers["x-loragen-fallback-reason"]
        assert reason in ("low_fidelity", "model_unsure")
