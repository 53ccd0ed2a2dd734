"""A task with ten tools: calls of the same schema in both modes, and no tool list in context."""

import json
from typing import Any

import pytest
from transformers import AutoTokenizer

from loragen.template import CompiledTemplate
from tests.e2e.stack import CHECKPOINT, MODEL, Stack

PROMPT = "You are a friendly bot. Use a tool for every message."
QUESTION = "How much is the lamp?"
ITEMS = ["lamp", "sofa"]


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    """Return a tool that takes what JSON schemas say."""
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    function = {"name": name, **({"parameters": schema} if parameters else {})}
    return {"type": "function", "function": function}


# The generator reads 500 tokens, and knows no word of JSON schemas: most tools take nothing.
TOOLS = [
    tool("order", item={"enum": ITEMS}),
    tool("price", item={"enum": ITEMS}),
    *(tool(name) for name in ("help", "greet", "label", "rule", "city", "stop", "open", "close")),
]
ORDER = {"type": "function", "function": {"name": "order"}}


@pytest.fixture(scope="module")
def task(stack: Stack) -> dict[str, Any]:
    # How calls are made is tested, not how well the recipe knows the tools.
    created = stack.create(PROMPT, tools=TOOLS, min_fidelity=0)
    assert created["status"] == "ready", created
    return created


def call(stack: Stack, task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the answer to a request that must be one tool call."""
    reply = stack.ask(QUESTION, task["id"], max_tokens=256, **fields)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    for each in answer["choices"][0]["message"]["tool_calls"]:
        check_call(each)
    assert answer["choices"][0]["message"]["tool_calls"], answer
    return answer


def check_call(given: dict[str, Any]) -> None:
    """Check a tool call against its definition; without parameters it may say anything."""
    definitions = {each["function"]["name"]: each["function"] for each in TOOLS}
    schema = definitions[given["function"]["name"]].get("parameters")
    arguments = json.loads(given["function"]["arguments"])
    if schema is not None:
        assert set(arguments) == set(schema["properties"])
        assert all(value in ITEMS for value in arguments.values())


@pytest.mark.parametrize("choice", ["required", ORDER], ids=["required", "named"])
def test_both_modes_make_valid_calls_and_compiled_mode_prints_no_tools(
    stack: Stack, task: dict[str, Any], choice: Any
) -> None:
    compiled = call(stack, task, tool_choice=choice)
    prompted = call(stack, task, tool_choice=choice, loragen={"mode": "prompt"})
    usages = [answer["usage"] for answer in (compiled, prompted)]
    assert [usage["loragen"]["mode"] for usage in usages] == ["compiled", "prompt"]
    saved = usages[0]["loragen"]["saved_prompt_tokens"]
    assert saved == task["prompt_tokens"]
    assert usages[1]["prompt_tokens"] - usages[0]["prompt_tokens"] == saved
    assert usages[1]["prompt_tokens"] >= 4 * usages[0]["prompt_tokens"]


def test_the_client_may_send_the_tools_again_and_stream(stack: Stack, task: dict[str, Any]) -> None:
    make: Any = stack.client.chat.completions.create  # dicts stand in for typed tools
    chunks = list(
        make(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            tools=TOOLS,
            tool_choice=ORDER,
            temperature=0,
            max_tokens=256,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"task_id": task["id"]},
        )
    )
    parts = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or []]
    name = "".join(part.function.name or "" for part in parts)
    arguments = "".join(part.function.arguments or "" for part in parts)
    check_call({"function": {"name": name, "arguments": arguments}})
    assert chunks[-1].usage.model_dump()["loragen"]["mode"] == "compiled"


def test_a_call_in_the_models_own_words_is_parsed(stack: Stack, task: dict[str, Any]) -> None:
    """The model calls no tool by itself, so a grammar leaves it nothing else to say."""
    spoken = r'<tool_call>\{"name": "order", "arguments": \{"item": "lamp"\}\}</tool_call>'
    answer = call(stack, task, tool_choice="auto", structured_outputs={"regex": spoken})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_without_a_choice_or_with_none_text_stays_text(stack: Stack, task: dict[str, Any]) -> None:
    for fields in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"}):
        reply = stack.ask(QUESTION, task["id"], **fields).json()
        assert reply["usage"]["loragen"]["mode"] == "compiled"
        assert reply["choices"][0]["message"]["content"]


def test_a_conversation_with_calls_has_the_tokens_of_the_compiled_template(
    stack: Stack, task: dict[str, Any]
) -> None:
    made = {"name": "price", "arguments": '{"item": "lamp"}'}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": QUESTION},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": made}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    ]
    reply = stack.ask("", task["id"], messages=turns).json()
    assert reply["usage"]["loragen"]["mode"] == "compiled"
    turns[1]["tool_calls"][0]["function"] = {**made, "arguments": json.loads(made["arguments"])}
    template = CompiledTemplate.load(CHECKPOINT / "edge" / "compiled_template.jinja")
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT / "edge")
    ids = tokenizer(template.render(turns), add_special_tokens=False)["input_ids"]
    assert reply["usage"]["prompt_tokens"] == len(ids)


def test_other_tools_are_printed_beside_the_recipe(stack: Stack, task: dict[str, Any]) -> None:
    other = [tool("colour", item={"enum": ITEMS})]
    choice = {"type": "function", "function": {"name": "colour"}}
    reply = stack.ask(QUESTION, task["id"], tools=other, tool_choice=choice, max_tokens=256).json()
    assert reply["usage"]["loragen"]["mode"] == "hybrid"
    (made,) = reply["choices"][0]["message"]["tool_calls"]
    assert made["function"]["name"] == "colour"
    assert json.loads(made["function"]["arguments"])["item"] in ITEMS
    alone = stack.ask(QUESTION, task["id"]).json()
    assert reply["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"]


def test_tools_without_a_task_are_passed_on(stack: Stack) -> None:
    reply = stack.ask(QUESTION, tools=TOOLS, tool_choice=ORDER, max_tokens=256).json()
    assert reply["usage"]["loragen"]["mode"] == "base"
    (made,) = reply["choices"][0]["message"]["tool_calls"]
    check_call(made)
