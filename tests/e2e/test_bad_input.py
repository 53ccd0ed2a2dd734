"""Bad input gets a clear 4xx in the OpenAI shape, and the engine lives on."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.stack import MODEL, Stack

QUESTION = [{"role": "user", "content": "hello"}]
UNKNOWN_TASK = "task_" + "a" * 26


@pytest.fixture(autouse=True)
def _engine_lives_on(stack: Stack) -> Iterator[None]:
    yield
    assert stack.ask("hello").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("tasks", {"model": MODEL, "system_prompt": ""}, 400, "invalid_request"),
        ("tasks", {"model": MODEL, "system_prompt": " \n"}, 400, "invalid_request"),
        ("tasks", {"model": MODEL, "system_prompt": 7}, 400, "invalid_request"),
        ("tasks", {"model": MODEL, "system_prompt": "a\x00b"}, 400, "invalid_request"),
        ("tasks", {"model": MODEL}, 400, "invalid_request"),
        ("tasks", {"model": "nobody", "system_prompt": "hi"}, 404, "model_not_found"),
        ("tasks", {"model": MODEL, "system_prompt": "hi", "probes": []}, 400, "invalid_request"),
        ("chat/completions", {"messages": QUESTION}, 400, "invalid_request"),
        ("chat/completions", {"model": MODEL, "messages": []}, 400, "invalid_request"),
        ("chat/completions", {"model": "nobody", "messages": QUESTION}, 404, "model_not_found"),
        (
            "chat/completions",
            {"model": MODEL, "messages": QUESTION, "task_id": UNKNOWN_TASK},
            404,
            "task_not_found",
        ),
        (
            "chat/completions",
            {"model": f"{MODEL}:other", "messages": QUESTION, "task_id": UNKNOWN_TASK},
            400,
            "invalid_request",
        ),
        (
            "chat/completions",
            {"model": MODEL, "messages": QUESTION, "max_tokens": 10**9},
            400,
            "context_length_exceeded",
        ),
        (
            "chat/completions",
            {"model": MODEL, "messages": QUESTION, "temperature": -1},
            400,
            "invalid_request",
        ),
        *(
            (
                "chat/completions",
                {"model": MODEL, "messages": QUESTION, field: value},
                400,
                "invalid_request",
            )
            for field, value in {
                "no_such_field": 1,
                "prompt_logprobs": 1,
                "cache_salt": "x",
                "priority": 1,
                "chat_template": "{{ 1 }}",
                "vllm_xargs": {},
                "kv_transfer_params": {},
                "loragen_recipe": "x",
            }.items()
        ),
        (
            "completions",
            {"model": MODEL, "prompt": "hi", "echo": True, "logprobs": 1},
            400,
            "invalid_request",
        ),
        (
            "completions",
            {"model": MODEL, "prompt": [1, 2], "task_id": "TASK"},
            400,
            "invalid_request",
        ),
        (
            "chat/completions",
            {
                "model": MODEL,
                "task_id": "TASK",
                "system_prompt": "compile",
                "messages": [{"role": "system", "content": "x"}, *QUESTION],
            },
            400,
            "invalid_request",
        ),
        (
            "chat/completions",
            {
                "model": MODEL,
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
                ],
            },
            400,
            "invalid_request",
        ),
    ],
)
def test_bad_requests_are_refused(
    stack: Stack, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    if body.get("task_id") == "TASK":
        body = {**body, "task_id": stack.create("You are Ada.")["id"]}
    reply = stack.http.post(f"/v1/{path}", json=body)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"]


def test_malformed_json_is_refused(stack: Stack) -> None:
    reply = stack.http.post(
        "/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}
    )
    assert reply.status_code == 400
    assert "JSON" in reply.json()["error"]["message"]


def test_oversized_bodies_and_prompts_are_refused(stack: Stack) -> None:
    big = stack.http.post("/v1/tasks", json={"model": MODEL, "system_prompt": "a" * (3 << 20)})
    assert (big.status_code, big.json()["error"]["code"]) == (413, "request_too_large")
    long = stack.http.post(
        "/v1/tasks", json={"model": MODEL, "system_prompt": "hello there " * 5_000}
    )
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_forged_recipe_header_is_refused_by_gateway_and_worker(stack: Stack) -> None:
    headers = {"x-lora-recipe": "Zm9yZ2Vk"}
    body = {"model": MODEL, "messages": QUESTION}
    reply = stack.http.post("/v1/chat/completions", json=body, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")
    direct = stack.http.post(stack.worker_url + "/v1/chat/completions", json=body, headers=headers)
    assert direct.status_code == 401
    trusted = {**headers, "authorization": f"Bearer {stack.worker_secret}"}
    direct = stack.http.post(stack.worker_url + "/v1/chat/completions", json=body, headers=trusted)
    assert (direct.status_code, direct.json()["error"]["code"]) == (400, "recipe_invalid")


def test_a_damaged_recipe_in_redis_is_compiled_again(stack: Stack) -> None:
    prompt = "Your name is Damaged. Be kind to people."
    task = stack.create(prompt)
    client = stack.redis()
    for key in client.scan_iter("*:recipe:*"):
        client.setrange(key, 100, b"\xff\x00\xff")
    for key in client.scan_iter("*:recipe:*"):
        data = client.get(key)
        assert isinstance(data, bytes)
        client.set(key, data[: len(data) // 2])
    stack.forget_memory()
    reply = stack.ask("hello", task["id"])
    assert reply.status_code == 200
    assert reply.headers["x-loragen-mode"] == "compiled"
    assert reply.headers["x-loragen-recipe"] == task["recipe"]["id"]


def test_errors_reach_the_official_client(stack: Stack) -> None:
    import openai

    with pytest.raises(openai.NotFoundError) as caught:
        stack.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"task_id": UNKNOWN_TASK},
        )
    assert caught.value.code == "task_not_found"
    assert json.dumps(caught.value.body)
