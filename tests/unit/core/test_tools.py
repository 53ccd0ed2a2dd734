"""One list of tools, one text of it, however it was spelled."""

from typing import Any

import pytest
from pydantic import ValidationError

from loragen.tools import (
    canonical_tools,
    compile_text,
    dump_tools,
    load_tools,
    parse_tools,
    same_tools,
)

CITY = {"properties": {"city": {"type": "string", "default": None}}, "type": "object"}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "Wetter für 🦊", "parameters": CITY},
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}


def test_spelling_does_not_change_the_canonical_text() -> None:
    respelled = {
        "function": {
            "strict": None,
            "parameters": dict(reversed(CITY.items())),
            "name": "weather",
            "description": "Wetter für 🦊",
        },
        "type": "function",
    }
    assert canonical_tools(parse_tools([respelled])) == canonical_tools(parse_tools([WEATHER]))
    assert canonical_tools(parse_tools([CLOCK])) != canonical_tools(parse_tools([WEATHER]))
    assert canonical_tools([]) == ""


def test_stored_tools_come_back_in_the_order_they_were_given() -> None:
    tools = parse_tools([WEATHER, CLOCK])
    loaded = load_tools(dump_tools(tools))
    assert loaded == tools
    assert [tool.body() for tool in loaded] == [WEATHER, CLOCK]
    assert list((loaded[0].function.parameters or {}).keys()) == ["properties", "type"]


def test_lists_are_the_same_in_any_order() -> None:
    assert same_tools(parse_tools([WEATHER, CLOCK]), parse_tools([CLOCK, WEATHER]))
    assert not same_tools(parse_tools([WEATHER]), parse_tools([WEATHER, CLOCK]))


def test_a_generator_reads_the_prompt_and_a_line_for_each_tool() -> None:
    tools = parse_tools([CLOCK, WEATHER])
    lines = (
        'Tools:\n{"name":"clock"}\n{"name":"weather","description":"Wetter für 🦊","parameters":'
        '{"properties":{"city":{"default":null,"type":"string"}},"type":"object"}}'
    )
    assert compile_text("You are Ada.", tools) == f"You are Ada.\n\n{lines}"
    assert compile_text("", tools) == lines
    assert compile_text("You are Ada.", []) == "You are Ada."


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([CLOCK, CLOCK], "same name"),
        ([{"type": "function"}], "function"),
        ([{**CLOCK, "type": "mcp"}], "type"),
        ([{"type": "function", "function": {"name": "no spaces"}}], "name"),
        ([{"type": "function", "function": {"name": "f", "parameters": "{}"}}], "parameters"),
        ([{"type": "function", "function": {"name": "f", "body": "x"}}], "body"),
        ([{"type": "function", "function": {"name": "f", "strict": 0.0}}], "strict"),
        ([{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)], "128"),
    ],
)
def test_what_is_no_function_tool_is_refused(tools: list[Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        parse_tools(tools)
