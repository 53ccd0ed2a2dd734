"""The road a stranger takes: register a prompt, ask, see that the prompt never travels."""

import json
from typing import Any

import pytest

from tests.e2e.reference import Reference
from tests.e2e.stack import MODEL, Stack

Examples = list[dict[str, str]]


@pytest.fixture(scope="module")
def example(examples: Examples) -> dict[str, str]:
    return examples[0]


@pytest.fixture(scope="module")
def task_id(stack: Stack, example: dict[str, str]) -> str:
    task_id: str = stack.create(example["system_prompt"])["id"]
    return task_id


def test_answers_follow_unseen_prompts_that_are_not_sent(stack: Stack, examples: Examples) -> None:
    for example in examples:
        task = stack.create(example["system_prompt"])
        assert task["status"] == "ready", task
        reply = stack.ask(example["question"], task["id"])
        assert reply.headers["x-loragen-mode"] == "compiled"
        assert reply.headers["x-loragen-recipe"] == task["recipe"]["id"]
        assert reply.json()["choices"][0]["message"]["content"] == example["answer"]
        assert reply.json()["usage"]["loragen"] == {
            "mode": "compiled",
            "task_id": task["id"],
            "recipe_id": task["recipe"]["id"],
            "saved_prompt_tokens": task["prompt_tokens"],
        }


def test_without_the_task_the_answer_is_another(stack: Stack, examples: Examples) -> None:
    for example in examples:
        reply = stack.ask(example["question"])
        assert reply.headers["x-loragen-mode"] == "base"
        assert reply.json()["choices"][0]["message"]["content"] != example["answer"]


def test_prompt_tokens_are_those_of_the_compiled_template(
    stack: Stack, reference: Reference, example: dict[str, str], task_id: str
) -> None:
    reply = stack.ask(example["question"], task_id).json()
    assert reply["usage"]["prompt_tokens"] == len(reference.tokens(example["question"]))


def test_a_task_is_named_in_three_ways(stack: Stack, example: dict[str, str], task_id: str) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": example["question"]}],
        "temperature": 0,
    }
    replies = [
        stack.http.post("/v1/chat/completions", json={**body, "task_id": task_id}),
        stack.http.post("/v1/chat/completions", json={**body, "model": f"{MODEL}:{task_id}"}),
        stack.http.post("/v1/chat/completions", json=body, headers={"X-Task-Id": task_id}),
    ]
    assert [r.headers["x-loragen-task"] for r in replies] == [task_id] * 3
    assert {r.json()["choices"][0]["message"]["content"] for r in replies} == {example["answer"]}


def test_streaming_equals_not_streaming(
    stack: Stack, example: dict[str, str], task_id: str
) -> None:
    whole = stack.client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": example["question"]}],
        temperature=0,
        extra_body={"task_id": task_id},
    )
    chunks = list(
        stack.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": example["question"]}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"task_id": task_id},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content == example["answer"]
    assert whole.usage is not None
    last = chunks[-1].usage
    assert last is not None
    assert last.completion_tokens == whole.usage.completion_tokens
    assert last.model_dump()["loragen"]["mode"] == "compiled"
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_openai_parameters_work_with_a_task(
    stack: Stack, example: dict[str, str], task_id: str
) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    question = [{"role": "user", "content": example["question"]}]
    make: Any = stack.client.chat.completions.create  # dicts stand in for typed messages
    two = make(model=MODEL, messages=question, n=2, temperature=1, extra_body={"task_id": task_id})
    assert len(two.choices) == 2
    probable = make(
        model=MODEL,
        messages=question,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        extra_body={"task_id": task_id},
    )
    assert len(probable.choices[0].logprobs.content[0].top_logprobs) == 2
    shaped = make(
        model=MODEL,
        messages=question,
        temperature=0,
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        extra_body={"task_id": task_id},
    )
    assert isinstance(json.loads(shaped.choices[0].message.content)["ok"], bool)
    first_word = example["answer"].split()[0]
    stopped = make(
        model=MODEL,
        messages=question,
        temperature=0,
        stop=[first_word],
        extra_body={"task_id": task_id},
    )
    assert first_word not in (stopped.choices[0].message.content or "")
    assert stopped.choices[0].finish_reason == "stop"


def test_the_same_prompt_is_the_same_task_and_is_not_compiled_again(
    stack: Stack, example: dict[str, str], task_id: str
) -> None:
    before = stack.metric("loragen_compile_seconds_count")
    reply = stack.http.post(
        "/v1/tasks", json={"model": MODEL, "system_prompt": example["system_prompt"]}
    )
    assert reply.status_code == 200
    assert (reply.json()["id"], reply.json()["cached"]) == (task_id, True)
    assert stack.metric("loragen_compile_seconds_count") == before


def test_completions_take_a_task(stack: Stack, task_id: str) -> None:
    reply = stack.http.post(
        "/v1/completions",
        json={"model": MODEL, "prompt": "hello", "max_tokens": 4, "task_id": task_id},
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-loragen-mode"] == "compiled"


def test_a_system_message_that_is_to_be_kept_is_passed_on(
    stack: Stack, example: dict[str, str], reference: Reference
) -> None:
    messages = [
        {"role": "system", "content": example["system_prompt"]},
        {"role": "user", "content": example["question"]},
    ]
    body = {"model": MODEL, "messages": messages, "temperature": 0, "system_prompt": "keep"}
    reply = stack.http.post("/v1/chat/completions", json=body)
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]
    assert reply.json()["usage"]["prompt_tokens"] > len(reference.tokens(example["question"]))
