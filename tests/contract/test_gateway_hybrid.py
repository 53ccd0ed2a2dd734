"""Hybrid mode, modes that a request demands, and the operator's switch, through the gateway."""

from typing import Any

import httpx
import openai
import pytest

from loragen.errors import GeneratorUnavailable, LoragenError
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_store
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada."
RECIPE = expected_recipe(PROMPT)
SYSTEM = {"role": "system", "content": "Today is Monday."}
QUESTION = {"role": "user", "content": "hello"}


def text_of(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def test_system_text_beside_a_task_stays_in_the_messages(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    messages: Any = [SYSTEM, QUESTION]
    raw = gate.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=messages, extra_body={"task_id": task_id}
    )
    assert raw.headers["x-loragen-mode"] == "hybrid"
    assert "x-loragen-fallback-reason" not in raw.headers
    answer = raw.parse()
    assert answer.choices[0].message.content == (
        f"[recipe {RECIPE.id}] [system Today is Monday.] hello"
    )
    assert answer.usage is not None
    assert answer.usage.model_dump()["loragen"] == {
        "mode": "hybrid", "task_id": task_id, "recipe_id": RECIPE.id, "saved_prompt_tokens": 5
    }  # fmt: skip
    assert gate.worker.seen[-1].body["messages"] == messages


def test_without_a_recipe_prompt_and_system_text_are_one_message(gate: Gateway) -> None:
    gate.generator.error = LoragenError("broken")
    task_id = gate.create(PROMPT)["id"]
    reply = gate.ask("hello", task_id=task_id, messages=[SYSTEM, QUESTION])
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.headers["x-loragen-fallback-reason"] == "compile_failed"
    assert text_of(reply) == "[recipe none] [system You are Ada.\n\nToday is Monday.] hello"


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        ("compiled", f"[recipe {RECIPE.id}] [system none] hello"),
        ("prompt", "[recipe none] [system You are Ada.] hello"),
        ("base", "[recipe none] [system none] hello"),
    ],
)
def test_a_request_is_served_in_the_mode_it_demands(gate: Gateway, mode: str, answer: str) -> None:
    task_id = gate.create(PROMPT)["id"]
    reply = gate.ask("hello", task_id=task_id, loragen={"mode": mode})
    assert text_of(reply) == answer
    assert reply.headers["x-loragen-mode"] == mode
    assert reply.headers["x-loragen-task"] == task_id
    reason = None if mode == "compiled" else "requested"
    assert reply.headers.get("x-loragen-fallback-reason") == reason
    assert set(reply.json()["usage"]["loragen"]) == {
        "mode", "task_id", "recipe_id", "saved_prompt_tokens"
    }  # fmt: skip


def test_a_completion_is_served_in_the_mode_it_demands(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    body = {"task_id": task_id, "loragen": {"mode": "prompt"}}
    answer = gate.client.completions.create(model=MODEL, prompt="go", extra_body=body)
    assert answer.choices[0].text == f"[recipe none] {PROMPT}\n\ngo"


def test_a_demanded_recipe_that_is_missing_is_said(gate: Gateway) -> None:
    gate.generator.error = GeneratorUnavailable("away")
    task_id = gate.create(PROMPT)["id"]
    reply = gate.ask("hello", task_id=task_id, loragen={"mode": "compiled"})
    assert reply.status_code == 503
    assert reply.json()["error"]["param"] == "loragen.mode"
    assert int(reply.headers["retry-after"]) >= 1
    assert gate.worker.seen == []


@pytest.mark.parametrize("demanded", ["compiled", "hybrid", "prompt"])
def test_without_a_task_only_base_can_be_demanded(gate: Gateway, demanded: str) -> None:
    with pytest.raises(openai.BadRequestError, match="neither task") as caught:
        gate.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "hello"}],
            extra_body={"loragen": {"mode": demanded}},
        )
    assert caught.value.param == "loragen.mode"
    assert gate.ask("hello", loragen={"mode": "base"}).headers["x-loragen-mode"] == "base"


def test_a_client_that_asks_for_a_mode_is_counted_as_fallback(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    before = gate.metric("loragen_fallback_total", reason="requested")
    gate.ask("hello", task_id=task_id, loragen={"mode": "prompt"})
    assert gate.metric("loragen_fallback_total", reason="requested") == before + 1


@pytest.mark.parametrize("level", ["server", "edge model"])
def test_the_operator_forces_the_prompt(valkey: Valkey, namespace: str, level: str) -> None:
    forced: dict[str, Any] = {"force_prompt": True}
    overrides: dict[str, Any] = {"server": forced} if level == "server" else {"edge": forced}
    with gateway(redis_store(valkey.url, namespace), namespace, **overrides) as gate:
        task_id = gate.create(PROMPT, policy={"fallback": "error"})["id"]
        for mode in (None, "compiled", "prompt"):
            reply = gate.ask("hello", task_id=task_id, loragen={"mode": mode})
            assert reply.headers["x-loragen-mode"] == "prompt"
            assert reply.headers["x-loragen-fallback-reason"] == "operator_forced"
            assert text_of(reply) == "[recipe none] [system You are Ada.] hello"
