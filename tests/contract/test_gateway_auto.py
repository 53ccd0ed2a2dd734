"""Auto mode through the gateway: system text without a task, as drop-in clients send it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loragen.errors import GeneratorUnavailable
from loragen.tools import canonical_tools, compile_text, parse_tools
from server.app import build_app
from server.shared import Shared
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway import (
    MODEL,
    Gateway,
    expected_recipe,
    gateway,
    redis_shared,
    settings,
    tenant_keys,
)
from tests.fakes.live import wait_until
from tests.fakes.resolving import metric
from tests.fakes.stub_generator import StubGenerator
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada and answer every question in at most three words."
RECIPE = expected_recipe(PROMPT)
TASK_ID = tenant_keys().task_ids(edge_model=MODEL, prompt=PROMPT)[0]
BUDGET = 3
AUTO = {"min_prompt_tokens": 8, "compile_budget": BUDGET}


@dataclass(frozen=True)
class Answer:
    """An answer, streamed or not."""

    text: str
    mode: str
    reason: str | None
    task_id: str | None

    @classmethod
    def of(cls, reply: httpx.Response) -> "Answer":
        assert reply.status_code == 200, reply.text
        if reply.headers["content-type"].startswith("text/event-stream"):
            events = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
            assert events[-1] == "[DONE]"
            chunks = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
            text = "".join(chunk["content"] for chunk in chunks)
        else:
            text = reply.json()["choices"][0]["message"]["content"]
        named = ("mode", "fallback-reason", "task")
        mode, reason, task_id = (reply.headers.get(f"x-loragen-{name}") for name in named)
        return cls(text, mode or "", reason, task_id)


def say(gate: Gateway, *turns: str, prompt: str = PROMPT, **fields: Any) -> Answer:
    """Send a conversation of user and assistant turns under a prompt."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    system = {"role": "system", "content": prompt}
    return Answer.of(gate.ask("", messages=[system, *messages], **fields))


def until_ready(gate: Gateway, task_id: str = TASK_ID) -> None:
    wait_until(lambda: gate.http.get(f"/v1/tasks/{task_id}").json().get("status") == "ready")


@asynccontextmanager
async def in_process(
    state: Shared, namespace: str
) -> AsyncIterator[tuple[httpx.AsyncClient, StubGenerator]]:
    """Run a gateway whose memory holds one task beside the budget, without sockets."""
    worker, generator = FakeWorker(), StubGenerator()
    store = {"memory_entries": 1 + BUDGET, "memory_ttl_seconds": 60}
    app = build_app(
        settings(["http://worker"], namespace=namespace, auto=AUTO, store=store),
        shared=state,
        generator=generator,
        workers=httpx.AsyncClient(
            transport=httpx.ASGITransport(worker.app),
            headers={"authorization": f"Bearer {worker.key}"},
        ),
    )
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://gateway") as http,
    ):
        yield http, generator


@pytest.fixture(scope="module")
def module_gate(valkey: Valkey) -> Iterator[Gateway]:
    with gateway(redis_shared(valkey.url, "auto", **AUTO), "auto", auto=AUTO) as running:
        yield running


@pytest.fixture
def gate(module_gate: Gateway, valkey: Valkey) -> Gateway:
    module_gate.http.delete(f"/v1/tasks/{TASK_ID}")  # from its memory too
    for key in valkey.client.scan_iter(f"{module_gate.namespace}:*"):
        valkey.client.delete(key)
    module_gate.reset()
    return module_gate


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_comes_again_is_compiled_for_the_next_conversation(
    gate: Gateway, stream: bool
) -> None:
    first = say(gate, "hello", stream=stream)
    assert (first.mode, first.reason, first.task_id) == ("prompt", "first_sighting", None)
    assert first.text == f"[recipe none] [system {PROMPT}] hello"
    second = say(gate, "hello", first.text, "go on", stream=stream)
    assert (second.mode, second.reason, second.task_id) == ("prompt", "compiling", TASK_ID)
    until_ready(gate)

    other = say(gate, "hello", stream=stream)
    assert (other.mode, other.reason, other.task_id) == ("compiled", None, TASK_ID)
    assert other.text == f"[recipe {RECIPE.id}] [system none] hello"
    assert say(gate, "hello", other.text, "go on", stream=stream).mode == "compiled"

    running = ("hello", first.text, "go on", second.text, "and on")
    third = say(gate, *running, stream=stream)
    assert (third.mode, third.reason) == ("prompt", "running_conversation")
    assert say(gate, *running, third.text, "on").mode == "prompt"
    assert say(gate, *running, loragen={"switch": "now"}).mode == "compiled"
    assert say(gate, *running, loragen={"mode": "compiled"}).mode == "compiled"
    assert gate.generator.calls == {PROMPT: 1}


def test_a_conversation_that_began_before_its_prompt_was_seen_is_not_switched(
    gate: Gateway,
) -> None:
    turns = ("hello", "from another server", "go on")
    assert say(gate, *turns).reason == "first_sighting"
    assert say(gate, *turns).reason == "compiling"
    until_ready(gate)
    assert say(gate, *turns).reason == "running_conversation"


def test_tools_are_part_of_the_implicit_task(gate: Gateway) -> None:
    tools = [{"type": "function", "function": {"name": "clock"}}]
    parsed = parse_tools(tools)
    canonical = canonical_tools(parsed)
    (task_id,) = tenant_keys().task_ids(edge_model=MODEL, prompt=PROMPT, tools=canonical)
    assert say(gate, "hello", tools=tools).reason == "first_sighting"
    assert say(gate, "hello", tools=tools).task_id == task_id
    until_ready(gate, task_id)
    answer = say(gate, "bye", tools=tools)
    assert (answer.mode, answer.task_id) == ("compiled", task_id)
    assert f"[recipe {expected_recipe(compile_text(PROMPT, parsed)).id}]" in answer.text
    seen = gate.worker.seen[-1].body
    assert seen["tools"] == tools
    assert seen["chat_template_kwargs"] == {"loragen_compiled": True}
    other = [{"type": "function", "function": {"name": "weather"}}]
    assert say(gate, "bye", tools=other).reason == "first_sighting"


def test_usage_says_what_was_saved(gate: Gateway) -> None:
    answer = gate.client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": PROMPT}, {"role": "user", "content": "hello"}],
        extra_body={"system_prompt": "compile"},
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4  # the conversation alone
    assert answer.usage.model_dump()["loragen"] == {
        "mode": "compiled",
        "task_id": TASK_ID,
        "recipe_id": RECIPE.id,
        "saved_prompt_tokens": len(PROMPT.split()) + 2,
    }


def test_compile_waits_for_the_recipe_also_of_a_short_prompt(gate: Gateway) -> None:
    assert say(gate, "hello", system_prompt="compile").mode == "compiled"
    brief = say(gate, "hello", prompt="Ok.", system_prompt="compile")
    assert brief.text == f"[recipe {expected_recipe('Ok.').id}] [system none] hello"
    assert say(gate, "hello", prompt="Yes.", loragen={"mode": "compiled"}).mode == "compiled"
    assert say(gate, "hello").mode == "compiled"  # auto knows it


def test_compile_falls_back_with_the_reason(gate: Gateway) -> None:
    gate.generator.error = GeneratorUnavailable("away")
    answer = say(gate, "hello", system_prompt="compile")
    assert (answer.mode, answer.reason) == ("prompt", "generator_unavailable")
    assert answer.text == f"[recipe none] [system {PROMPT}] hello"


def test_compile_waits_no_longer_than_its_deadline(valkey: Valkey, namespace: str) -> None:
    server = {"compile_timeout_seconds": 0.1}
    with gateway(redis_shared(valkey.url, namespace), namespace, server=server) as gate:
        gate.generator.is_held = True
        answer = say(gate, "hello", system_prompt="compile")
        assert (answer.mode, answer.reason) == ("prompt", "compile_timeout")
        gate.generator.is_held = False


def test_keep_passes_messages_as_they_are_and_keeps_no_trace(gate: Gateway, valkey: Valkey) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": PROMPT}]},
        {"role": "user", "content": "hello", "name": "bob"},
    ]
    for _ in range(3):
        answer = Answer.of(gate.ask("", messages=messages, system_prompt="keep"))
        assert (answer.mode, answer.reason, answer.task_id) == ("prompt", "requested", None)
    assert gate.worker.seen[-1].body["messages"] == messages
    assert valkey.names(gate.namespace) == set()


def test_leading_system_messages_are_one_prompt_and_later_ones_stay(gate: Gateway) -> None:
    leading = [
        {"role": "system", "content": "You are Ada."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},
        {
            "role": "system",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
    ]
    conversation = [{"role": "user", "content": "hello"}]
    Answer.of(gate.ask("", messages=leading + conversation, system_prompt="compile"))
    assert gate.worker.seen[-1].body["messages"] == conversation
    assert gate.generator.calls == {"You are Ada.\n\nBe brief\n\na\nb": 1}
    conversation += [{"role": "system", "content": "Hurry."}, {"role": "user", "content": "and?"}]
    answer = Answer.of(gate.ask("", messages=leading + conversation, system_prompt="compile"))
    assert gate.worker.seen[-1].body["messages"] == conversation
    assert answer.mode == "hybrid"
    assert gate.generator.calls.total() == 1


def test_system_text_alone_or_empty_is_no_prompt(gate: Gateway, valkey: Valkey) -> None:
    for messages in (
        [{"role": "system", "content": PROMPT}],
        [{"role": "system", "content": " \n"}, {"role": "user", "content": "hello"}],
        [{"role": "user", "content": "hello"}, {"role": "system", "content": PROMPT}],
    ):
        answer = Answer.of(gate.ask("", messages=messages, system_prompt="compile"))
        assert (answer.mode, answer.reason) == ("base", None)
        assert gate.worker.seen[-1].body["messages"] == messages
    assert valkey.names(gate.namespace) == set()


def test_short_prompts_stay_in_context(gate: Gateway, valkey: Valkey) -> None:
    assert say(gate, "hello", prompt="Ok.").reason == "prompt_too_short"
    assert valkey.names(gate.namespace) == set()  # not even looked at
    long_word = "x" * 100
    reasons = [say(gate, "hello", prompt=long_word).reason for _ in range(4)]
    assert reasons == ["first_sighting"] + 3 * ["prompt_too_short"]
    assert gate.worker.counted == 2  # with and without, once
    assert gate.generator.calls.total() == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"system_prompt": "compile", "loragen": {"mode": "prompt"}}, "loragen.mode"),
        ({"system_prompt": "compile", "loragen": {"mode": "base"}}, "loragen.mode"),
        ({"system_prompt": "keep", "loragen": {"mode": "compiled"}}, "loragen.mode"),
        ({"system_prompt": "compile", "task_id": TASK_ID}, "system_prompt"),
        ({"system_prompt": "always"}, "system_prompt"),
        ({"loragen": {"switch": "never"}}, "loragen.switch"),
        ({"loragen": {"mode": "hybrid"}}, "loragen.mode"),
    ],
)
def test_what_contradicts_itself_is_refused(
    gate: Gateway, fields: dict[str, Any], param: str
) -> None:
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": "hello"}]
    reply = gate.ask("", messages=messages, **fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_forced_modes_go_for_system_text_too(gate: Gateway) -> None:
    prompted = say(gate, "hello", loragen={"mode": "prompt"})
    assert (prompted.mode, prompted.reason) == ("prompt", "requested")
    base = say(gate, "hello", loragen={"mode": "base"})
    assert (base.mode, base.reason) == ("base", None)
    assert gate.worker.seen[0].body["messages"] == gate.worker.seen[1].body["messages"]


def test_a_model_without_generator_passes_on(valkey: Valkey, namespace: str) -> None:
    with gateway(
        redis_shared(valkey.url, namespace), namespace, has_generator=False, auto=AUTO
    ) as gate:
        for _ in range(3):
            answer = say(gate, "hello")
            assert (answer.mode, answer.reason) == ("prompt", "no_generator")
            assert answer.text == f"[recipe none] [system {PROMPT}] hello"
        assert valkey.names(namespace) == set()


def test_the_operator_forces_prompt_on_system_text(valkey: Valkey, namespace: str) -> None:
    server = {"force_prompt": True}
    with gateway(redis_shared(valkey.url, namespace), namespace, server=server, auto=AUTO) as gate:
        for fields in ({}, {"system_prompt": "compile"}, {"loragen": {"mode": "compiled"}}):
            answer = say(gate, "hello", **fields)
            assert (answer.mode, answer.reason) == ("prompt", "operator_forced")
        assert gate.generator.calls.total() == 0


async def test_a_thousand_changing_date_lines_cost_the_budget_and_evict_nothing_hot(
    valkey: Valkey, namespace: str
) -> None:
    async with in_process(redis_shared(valkey.url, namespace, **AUTO), namespace) as (
        http,
        generator,
    ):
        task = {"model": MODEL, "system_prompt": "You are hot."}
        hot = (await http.post("/v1/tasks", json=task)).json()["id"]
        before = valkey.names(namespace)

        async def ask(number: int) -> str:
            prompt = f"{PROMPT} Today is day {number}."
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "x"}]
            body = {"model": MODEL, "messages": messages}
            reply = await http.post("/v1/chat/completions", json=body)
            return str(reply.headers["x-loragen-fallback-reason"])

        reasons: Counter[str] = Counter()
        for _ in range(2):  # or none would compile
            for start in range(0, 500, 50):
                reasons.update(await asyncio.gather(*map(ask, range(start, start + 50))))
        assert reasons == {
            "first_sighting": 500, "compiling": BUDGET, "budget_spent": 500 - BUDGET
        }  # fmt: skip
        hits = metric("recipe_cache_hits_total", tier="memory")
        body = {"model": MODEL, "task_id": hot, "messages": [{"role": "user", "content": "x"}]}
        reply = await http.post("/v1/chat/completions", json=body)
        assert reply.headers["x-loragen-mode"] == "compiled"
        assert metric("recipe_cache_hits_total", tier="memory") == hits + 1
        assert generator.calls.total() == 1 + BUDGET
        assert generator.calls["You are hot."] == 1
        listed = (await http.get("/v1/tasks")).json()["data"]
        assert [task["id"] for task in listed] == [hot]
    after = valkey.names(namespace)
    assert before <= after
    assert all(int(str(valkey.client.ttl(key))) > 0 for key in after - before)


def test_gateways_share_what_they_have_seen(valkey: Valkey, namespace: str) -> None:
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(
                gateway(redis_shared(valkey.url, namespace, **AUTO), namespace, auto=AUTO)
            )
            for _ in range(2)
        )
        first = say(one, "hello")
        assert first.reason == "first_sighting"
        assert say(two, "hello").reason == "compiling"
        until_ready(one)
        assert [say(each, "hello").mode for each in (one, two)] == ["compiled", "compiled"]
        running = ("hello", first.text, "go on")
        assert [say(each, *running).reason for each in (two, one)] == 2 * ["running_conversation"]
        assert one.generator.calls + two.generator.calls == {PROMPT: 1}


def test_a_task_that_recovers_waits_for_the_next_conversation_too(gate: Gateway) -> None:
    gate.generator.error = GeneratorUnavailable("away")
    task_id = gate.create(PROMPT)["id"]
    first = gate.ask("hello", task_id=task_id)
    assert first.headers["x-loragen-mode"] == "prompt"
    text = first.json()["choices"][0]["message"]["content"]
    gate.generator.error = None
    wait_until(lambda: gate.ask("x", task_id=task_id).headers["x-loragen-mode"] == "compiled")
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": "go on"},
    ]
    running = gate.ask("", task_id=task_id, messages=messages)
    assert running.headers["x-loragen-fallback-reason"] == "running_conversation"
    messages[1]["content"] = "of a conversation this server never saw in prompt mode"
    assert gate.ask("", task_id=task_id, messages=messages).headers["x-loragen-mode"] == "compiled"


def test_the_operator_may_let_conversations_switch_at_once(valkey: Valkey, namespace: str) -> None:
    auto = {**AUTO, "switch": "now"}
    with gateway(redis_shared(valkey.url, namespace, **auto), namespace, auto=auto) as gate:
        turns = ("hello", say(gate, "hello").text, "go on")
        say(gate, *turns)
        until_ready(gate)
        assert say(gate, *turns).mode == "compiled"
        kept = say(gate, *turns, loragen={"switch": "next_conversation"})
        assert kept.reason == "running_conversation"


def test_without_redis_the_prompt_serves(tmp_path: Path, namespace: str) -> None:
    valkey = Valkey(tmp_path)
    with gateway(redis_shared(valkey.url, namespace, **AUTO), namespace, auto=AUTO) as gate:
        valkey.kill()
        answer = say(gate, "hello")
        assert (answer.mode, answer.reason) == ("prompt", "store_unavailable")


def test_an_implicit_task_can_be_registered_and_is_not_compiled_again(gate: Gateway) -> None:
    say(gate, "hello", system_prompt="compile")
    assert gate.http.get("/v1/tasks").json()["data"] == []
    reply = gate.http.post(
        "/v1/tasks",
        json={"model": MODEL, "system_prompt": PROMPT, "policy": {"fallback": "error"}},
    )
    task = reply.json()
    assert (reply.status_code, task["id"], task["cached"]) == (201, TASK_ID, False)
    assert (task["status"], task["recipe"]["id"]) == ("ready", RECIPE.id)
    assert [each["id"] for each in gate.http.get("/v1/tasks").json()["data"]] == [TASK_ID]
    assert gate.http.get(f"/v1/tasks/{TASK_ID}").json()["policy"] == {
        "fallback": "error",
        "refine": "auto",
        "shadow": "allow",
    }
    assert gate.create(PROMPT)["cached"]
    assert gate.generator.calls == {PROMPT: 1}


def test_a_deleted_implicit_task_leaves_nothing_and_must_be_seen_again(
    gate: Gateway, valkey: Valkey
) -> None:
    say(gate, "hello")
    say(gate, "hello")
    until_ready(gate)
    assert gate.http.delete(f"/v1/tasks/{TASK_ID}").status_code == 200
    for key in valkey.client.scan_iter(f"{gate.namespace}:*"):
        assert TASK_ID.encode() not in bytes(key)
    assert say(gate, "hello").reason == "first_sighting"


def test_an_implicit_task_lives_as_long_as_it_is_used(gate: Gateway, valkey: Valkey) -> None:
    say(gate, "hello", system_prompt="compile")
    key = f"{gate.namespace}:task:default:{TASK_ID}"
    valkey.client.expire(key, 5)
    wait_until(lambda: say(gate, "hello") and int(str(valkey.client.ttl(key))) > 5)
