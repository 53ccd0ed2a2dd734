"""Chat and completions through the official client: what reaches the worker, what comes back."""

import asyncio
import json
from collections import Counter
from typing import Any

import openai
import pytest

from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_store
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada. 🦊"
RECIPE = expected_recipe(PROMPT)
COMPILED = f"[recipe {RECIPE.id}] [system none] hello"


def events_of(text: str) -> list[str]:
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("form", ["body", "model and id", "model and name", "header", "all"])
def test_a_task_said_in_any_form_is_served_by_its_recipe(gate: Gateway, form: str) -> None:
    task_id = gate.create(PROMPT, name="ada")["id"]
    forms: dict[str, dict[str, Any]] = {
        "body": {"model": MODEL, "extra_body": {"task_id": task_id}},
        "model and id": {"model": f"{MODEL}:{task_id}"},
        "model and name": {"model": f"{MODEL}:ada"},
        "header": {"model": MODEL, "extra_headers": {"X-Task-Id": task_id}},
        "all": {
            "model": f"{MODEL}:{task_id}",
            "extra_body": {"task_id": task_id},
            "extra_headers": {"X-Task-Id": task_id},
        },
    }
    raw = gate.client.chat.completions.with_raw_response.create(
        messages=[{"role": "user", "content": "hello"}], temperature=0, **forms[form]
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == COMPILED
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4  # the conversation alone
    assert answer.usage.model_dump()["loragen"] == {
        "mode": "compiled",
        "task_id": task_id,
        "recipe_id": RECIPE.id,
        "saved_prompt_tokens": 6,
    }
    assert raw.headers["x-loragen-mode"] == "compiled"
    assert raw.headers["x-loragen-task"] == task_id
    assert raw.headers["x-loragen-recipe"] == RECIPE.id
    assert "x-loragen-fallback-reason" not in raw.headers
    (seen,) = gate.worker.seen
    assert seen.in_header
    assert seen.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
        "chat_template_kwargs": {"loragen_compiled": True},
    }


def test_without_a_task_requests_pass_as_they_are(gate: Gateway) -> None:
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    schema: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1}}}
    raw = gate.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages, n=2, response_format=schema, seed=7, stop=["x"],
        extra_body={"top_k": 5, "structured_outputs": {"regex": "a+"}},
    )  # fmt: skip
    assert raw.headers["x-loragen-mode"] == "prompt"
    assert raw.headers["x-loragen-fallback-reason"] == "prompt_too_short"
    assert "x-loragen-task" not in raw.headers
    answer = raw.parse()
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert "[system Be brief.]" in str(answer.choices[0].message.content)
    (seen,) = gate.worker.seen
    assert seen.recipe_id is None
    assert seen.body == {
        "model": MODEL, "messages": messages, "n": 2, "response_format": schema, "seed": 7,
        "stop": ["x"], "top_k": 5, "structured_outputs": {"regex": "a+"},
    }  # fmt: skip


def test_a_large_recipe_travels_in_the_body(gate: Gateway) -> None:
    gate.generator.experts = 2_000
    task_id = gate.create(PROMPT)["id"]
    assert gate.ask("hello", task_id=task_id).headers["x-loragen-mode"] == "compiled"
    (seen,) = gate.worker.seen
    assert not seen.in_header
    assert seen.recipe_id == gate.http.get(f"/v1/tasks/{task_id}").json()["recipe"]["id"]


def test_completions_serve_tasks_too(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    answer = gate.client.completions.create(
        model=MODEL, prompt="go", extra_body={"task_id": task_id}
    )
    assert answer.choices[0].text == f"[recipe {RECIPE.id}] go"
    assert answer.usage is not None
    assert answer.usage.model_dump()["loragen"]["mode"] == "compiled"
    with pytest.raises(openai.BadRequestError) as caught:
        gate.client.completions.create(model=f"{MODEL}:{task_id}", prompt=[1, 2])
    assert caught.value.param == "prompt"
    assert gate.client.completions.create(model=MODEL, prompt=[1, 2]).choices


def test_a_stream_brings_text_usage_and_done(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.worker.tail = " \u2028 \x85 ünï\u2029code"
    with gate.client.chat.completions.with_streaming_response.create(
        model=f"{MODEL}:{task_id}",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-accel-buffering"] == "no"
        assert raw.headers["x-loragen-mode"] == "compiled"
        text = b"".join(raw.iter_bytes()).decode()
    events = events_of(text)
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    words = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[:-1]]
    assert "".join(words) == COMPILED + gate.worker.tail
    usage = chunks[-1]["usage"]
    assert usage["prompt_tokens"] == 4
    assert usage["loragen"]["recipe_id"] == RECIPE.id
    assert text.count('"loragen"') == 1


def test_a_stream_without_usage_has_none(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    stream = gate.client.chat.completions.create(
        model=f"{MODEL}:{task_id}", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == COMPILED
    assert all(chunk.usage is None for chunk in chunks)


def test_streamed_completions_serve_tasks_too(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    stream = gate.client.completions.create(
        model=f"{MODEL}:{task_id}",
        prompt="go",
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert text == f"[recipe {RECIPE.id}] go"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump()["loragen"]["mode"] == "compiled"


def test_silence_in_a_stream_is_filled(valkey: Valkey, namespace: str) -> None:
    brief = {"keep_alive_seconds": 0.02}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with gateway(redis_store(valkey.url, namespace), namespace, server=brief) as gate:
        gate.worker.hold_after = 1
        with gate.http.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            comments = 0
            while comments < 2:
                comments += next(lines) == ": keep-alive"
            gate.worker.hold_after = None
            assert events_of("\n".join(lines))[-1] == "[DONE]"


@pytest.mark.parametrize("knob", ["die_after", "error_after"])
def test_a_worker_that_fails_mid_stream_ends_it_with_an_error(gate: Gateway, knob: str) -> None:
    task_id = gate.create(PROMPT)["id"]
    setattr(gate.worker, knob, 2)
    body = {"model": MODEL, "task_id": task_id, "stream": True}
    reply = gate.http.post(
        "/v1/chat/completions", json={**body, "messages": [{"role": "user", "content": "hello"}]}
    )
    assert reply.status_code == 200
    events = events_of(reply.text)
    assert len(events) == 3
    error = json.loads(events[-1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "worker_unavailable"
    assert "secret" not in reply.text
    assert "[DONE]" not in reply.text


def test_the_official_client_raises_a_mid_stream_error(gate: Gateway) -> None:
    gate.worker.die_after = 1
    stream = gate.client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True
    )
    with pytest.raises(openai.APIError, match="lost while answering"):
        list(stream)


def test_a_stream_whose_worker_fails_before_the_first_token_is_answered_by_another(
    valkey: Valkey, namespace: str
) -> None:
    failing, other = FakeWorker(die_after=0), FakeWorker()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a b c"}], "stream": True}
    store = redis_store(valkey.url, namespace)
    with gateway(store, namespace, workers=[failing, other]) as gate:
        while not failing.seen:
            reply = gate.http.post("/v1/chat/completions", json=body)
            assert events_of(reply.text)[-1] == "[DONE]"


def test_a_worker_killed_mid_stream_ends_it_with_an_error(own_gate: Gateway) -> None:
    gate = own_gate
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a b c"}], "stream": True}
    gate.worker.hold_after = 1
    with gate.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        wait_until(lambda: gate.worker.held == 1)
        gate.worker_server.kill()
        rest = "\n".join(lines)
    assert json.loads(events_of(rest)[-1])["error"]["code"] == "worker_unavailable"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_worker(gate: Gateway, stream: bool) -> None:
    gate.worker.hold = not stream
    gate.worker.hold_after = 1
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a b"}], "stream": stream}
    with (
        pytest.raises(Exception, match="timed out"),
        gate.http.stream("POST", "/v1/chat/completions", json=body, timeout=0.2) as reply,
    ):
        reply.read()
    wait_until(lambda: gate.worker.abandoned == 1)
    worker = gate.worker_server.url
    wait_until(lambda: gate.metric("loragen_worker_requests_inflight", worker=worker) == 0)
    gate.worker.hold = False
    assert gate.ask("still there?").status_code == 200


def test_a_recipe_for_an_old_pool_is_compiled_again(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.worker.pool_id = gate.generator.pool_id = "00" * 32
    reply = gate.ask("hello", task_id=task_id)
    assert reply.headers["x-loragen-mode"] == "compiled"
    shown = gate.http.get(f"/v1/tasks/{task_id}").json()
    assert shown["recipe"]["pool_id"] == "00" * 32
    assert reply.headers["x-loragen-recipe"] == shown["recipe"]["id"]
    assert gate.generator.calls.total() == 2


@pytest.mark.parametrize("cause", ["pool", "shape"])
def test_when_no_recipe_fits_the_worker_the_prompt_serves(gate: Gateway, cause: str) -> None:
    task_id = gate.create(PROMPT)["id"]
    if cause == "pool":
        gate.worker.pool_id = "00" * 32
    else:
        gate.worker.layers = 5
    saved = gate.metric("loragen_prompt_tokens_saved_total")
    before = gate.metric("loragen_fallback_total", reason="worker_pool_mismatch")
    reply = gate.ask("hello", task_id=task_id)
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.headers["x-loragen-fallback-reason"] == "worker_pool_mismatch"
    assert f"[system {PROMPT}]" in reply.json()["choices"][0]["message"]["content"]
    assert gate.metric("loragen_fallback_total", reason="worker_pool_mismatch") == before + 1
    assert gate.metric("loragen_prompt_tokens_saved_total") == saved


async def test_a_hundred_requests_over_fifty_tasks_never_mix(gate: Gateway) -> None:
    prompts = [f"You are number {number}." for number in range(50)]
    client = openai.AsyncOpenAI(
        base_url=gate.server.url + "/v1", api_key="any", max_retries=0, timeout=30
    )

    async def create(prompt: str) -> str:
        body = {"model": MODEL, "system_prompt": prompt}
        task: Any = await client.post("/tasks", body=body, cast_to=object)
        return str(task["id"])

    async def ask(index: int, task_id: str) -> tuple[int, str]:
        answer = await client.chat.completions.create(
            model=f"{MODEL}:{task_id}", messages=[{"role": "user", "content": f"question {index}"}]
        )
        return index, str(answer.choices[0].message.content)

    saved = gate.metric("loragen_prompt_tokens_saved_total")
    async with client:
        ids = await asyncio.gather(*(create(prompt) for prompt in prompts))
        assert len(set(ids)) == 50
        found = await asyncio.gather(*(ask(index, ids[index % 50]) for index in range(100)))
    for index, text in found:
        recipe = expected_recipe(prompts[index % 50])
        assert text == f"[recipe {recipe.id}] [system none] question {index}"
    assert Counter(gate.generator.calls.values()) == {1: 50}
    assert gate.metric("loragen_prompt_tokens_saved_total") == saved + 100 * 6
