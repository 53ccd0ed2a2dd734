"""Two edge models behind one gateway, one of them any Hugging Face model without a generator."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stack import MODEL, Stack
from tests.fakes.tiny import TEMPLATE, TinyEdge

pytestmark = pytest.mark.slow

PLAIN = "org/plain"
PROMPT = "You are a pirate."


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("models")
    model = {"name": PLAIN, "model": str(plain_folder(folder)), "max_model_len": 256}
    running = Stack(folder, model | {"kv_cache_gib": 0.25, "max_num_seqs": 8})
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def plain_folder(folder: Path) -> Path:
    """Write a model folder that keeps its chat template where older ones do."""
    edge = TinyEdge.make(folder).model
    (edge / "chat_template.jinja").unlink()
    settings = edge / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": TEMPLATE}))
    return edge


def ask(stack: Stack, messages: list[dict[str, str]], **fields: Any) -> httpx.Response:
    body = {"model": PLAIN, "messages": messages, "temperature": 0, "max_tokens": 8, **fields}
    return stack.http.post("/v1/chat/completions", json=body)


def test_both_are_ready_and_listed(both: Stack) -> None:
    assert both.is_ready()
    assert [model.id for model in both.client.models.list()] == [MODEL, PLAIN]


def test_a_model_without_generator_answers_with_the_prompt_in_context(both: Stack) -> None:
    task = both.create(PROMPT, model=PLAIN)
    assert (task["status"], task["fallback_reason"]) == ("fallback", "no_generator")
    question = [{"role": "user", "content": "hello"}]
    reply = ask(both, question, task_id=task["id"])
    said = {name: reply.headers[f"x-loragen-{name}"] for name in ("mode", "fallback-reason")}
    assert said == {"mode": "prompt", "fallback-reason": "no_generator"}
    assert reply.json()["usage"]["loragen"]["saved_prompt_tokens"] == 0
    in_context = ask(both, [{"role": "system", "content": PROMPT}, *question]).json()
    assert reply.json()["choices"][0]["message"] == in_context["choices"][0]["message"]
    assert reply.json()["usage"]["prompt_tokens"] == in_context["usage"]["prompt_tokens"]


def test_the_same_task_has_its_recipe_with_the_other_model(
    both: Stack, examples: list[dict[str, str]]
) -> None:
    example = examples[0]
    task = both.create(example["system_prompt"])
    reply = both.ask(example["question"], task["id"])
    assert reply.headers["x-loragen-mode"] == "compiled"
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]


def test_a_task_is_of_one_model(both: Stack) -> None:
    task = both.create(PROMPT)
    reply = ask(both, [{"role": "user", "content": "hello"}], task_id=task["id"])
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")


def test_latency_is_told_by_model(both: Stack, examples: list[dict[str, str]]) -> None:
    served = {MODEL: "compiled", PLAIN: "prompt"}
    before = {model: latency_count(both, model, mode) for model, mode in served.items()}
    both.ask("hello", both.create(examples[0]["system_prompt"])["id"])
    ask(both, [{"role": "user", "content": "hi"}], task_id=both.create(PROMPT, model=PLAIN)["id"])
    after = {model: latency_count(both, model, mode) for model, mode in served.items()}
    assert after == {model: count + 1 for model, count in before.items()}


def latency_count(stack: Stack, model: str, mode: str) -> float:
    return stack.metric("loragen_e2e_request_latency_seconds_count", model=model, mode=mode)
