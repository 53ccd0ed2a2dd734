"""Tools of a task: part of what it is, compiled with its prompt, never shown again."""

from typing import Any

import pytest

from loragen.tools import canonical_tools, compile_text, parse_tools
from tests.fakes.fake_worker import word_count
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, tenant_keys
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada."


def tool(name: str, **properties: str) -> dict[str, Any]:
    """Return a tool with arguments of the given types."""
    schema = {"type": "object", "properties": {k: {"type": v} for k, v in properties.items()}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("weather", city="string"), tool("clock", zone="string")]


def register(gate: Gateway, **fields: Any) -> Any:
    return gate.http.post("/v1/tasks", json={"model": MODEL, **fields})


def test_tools_are_part_of_the_task_and_of_what_is_compiled(gate: Gateway) -> None:
    task = gate.create(PROMPT, tools=TOOLS)
    tools = parse_tools(TOOLS)
    canonical = canonical_tools(tools)
    assert task["id"] == tenant_keys().task_ids(edge_model=MODEL, prompt=PROMPT, tools=canonical)[0]
    assert task["id"] != gate.create(PROMPT)["id"]
    assert task["recipe"]["id"] == expected_recipe(compile_text(PROMPT, tools)).id
    assert task["prompt_tokens"] == len(PROMPT.split()) + 2 + sum(map(word_count, TOOLS))
    again = gate.create(PROMPT, tools=[dict(reversed(each.items())) for each in TOOLS])
    assert (again["id"], again["cached"]) == (task["id"], True)


def test_a_task_may_be_tools_alone(gate: Gateway) -> None:
    reply = register(gate, tools=TOOLS)
    assert reply.status_code == 201, reply.text
    assert reply.json()["prompt_tokens"] == sum(map(word_count, TOOLS))


def test_tools_outlive_the_recipe(gate: Gateway, valkey: Valkey) -> None:
    task = gate.create(PROMPT, tools=TOOLS)
    for key in valkey.client.scan_iter(f"{gate.namespace}:recipe:*"):
        valkey.client.delete(key)
    text = compile_text(PROMPT, parse_tools(TOOLS))
    wait_until(lambda: gate.ask("x", task_id=task["id"]) and gate.generator.calls[text] == 2)
    assert gate.generator.calls.total() == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "system_prompt"),
        ({"system_prompt": "", "tools": []}, "system_prompt"),
        ({"tools": "weather"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [tool("two words")]}, "tools.0.function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"system_prompt": " ", "tools": TOOLS}, "system_prompt"),
        ({"system_prompt": "x" * 200_000, "tools": [tool("y" * 64, **{"z" * 70_000: "string"})]},
         "system_prompt"),
    ],
)  # fmt: skip
def test_tasks_that_are_none_are_refused_by_field(
    gate: Gateway, fields: dict[str, Any], param: str
) -> None:
    reply = register(gate, **fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
