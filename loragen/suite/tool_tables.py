"""Tool families: the prompt lists tools, an answer calls one of them."""

from random import Random
from typing import Final

from loragen.suite.family import Turn, Values
from loragen.suite.table import ROWS, UNKNOWN, Table, entries, tabulate
from loragen.suite.tenant_words import ARGUMENTS, FREE, INTENTS


def _draw_tools(rng: Random) -> Values:
    size = rng.randint(*ROWS)
    intents, tools = rng.sample(list(INTENTS), size), rng.sample(FREE, size)
    arguments = rng.choices(ARGUMENTS, k=size)
    calls = [f"{tool}({argument})" for tool, argument in zip(tools, arguments, strict=True)]
    return {"table": tabulate(list(zip(intents, calls, strict=True)))}


def _ask_tools(rng: Random, values: Values) -> Turn:
    intent, call = rng.choice(entries(values))
    tool, argument = call.removesuffix(")").split("(")
    value = rng.choice(INTENTS[intent])
    question = rng.choice(
        ("{intent} for {value}", "I need {intent} for {value}.", "{value}: {intent}, please")
    ).format(intent=intent, value=value)
    return Turn(question, f'{{"tool": "{tool}", "{argument}": "{value}"}}', UNKNOWN)


TOOLS: Final = Table(
    name="tools",
    draw=_draw_tools,
    ask=_ask_tools,
    wordings=(
        "You <can call|have|use> tools. <Reply|Answer> in JSON.{table}",
        "<Tools|The tools|Your tools>:{table}",
        "<Answer|Reply> with one tool call <as|in> JSON:{table}",
        "<Use|Call|Find> the right tool and <write|give> JSON.{table}",
        "<JSON only|Only JSON>. <Tools|The tools>:{table}",
        "<Every|Each> answer is a tool call in JSON.{table}",
        "<Call|Use> one of these tools:{table}",
        "You are an agent with tools:{table}\n<Answer|Reply> in JSON.",
        "# Tools{table}",
        "These tools <can help|are there> for you:{table}\n<Call|Use> the right one.",
    ),
    held_out_wordings=(
        "Find the right tool for the user. <Answer|Reply> in JSON.{table}",
        "You are an agent. <Answer|Reply> with these tools in JSON:{table}",
        "<Write|Give> one tool call as JSON. Your tools:{table}",
        "<Use|Call> the tools with JSON only:{table}",
    ),
    rows=(
        "{value} for {key}",
        "{key}: {value}",
        "call {value} for {key}",
        "{key} = {value}",
        "{key} -> {value}",
        "{key} use {value}",
        "for {key} call {value}",
        "use {value} for {key}",
        "{value} is for {key}",
        "{value} gives {key}",
    ),
    held_out_rows=("for {key}: {value}", "for {key} use {value}", "{value} is called for {key}"),
)
