"""Table families: the prompt lists keys with values, a message names one of the keys.

A table is worded by an introduction, the form of a row, and what stands between rows. Each has
training and held-out forms, so a held-out wording is new in all three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, expand
from loragen.suite.tenant_words import (
    ARGUMENTS,
    CODES,
    CURRENCIES,
    DAYS,
    DEPARTMENTS,
    FREE,
    INTENTS,
    NONCE,
    NUMBERS,
    TOPICS,
)
from loragen.suite.words import CATEGORIES, CITIES, ITEMS, NAMES

ROWS: Final = (2, 6)
"""Fewest and most rows of a table."""
UNKNOWN: Final = "I do not know."
_UNLISTED_SHARE: Final = 0.08
"""Share of messages about something that the table does not list."""

_JOINTS: Final = (", ", "; ", ". ", "\n", "\n- ", " | ")
_HELD_OUT_JOINTS: Final = (", and ", "\n* ", ".\n")


@dataclass(frozen=True, slots=True)
class Table(Family):
    """A family whose prompts hold a table; wordings have a `{table}` slot."""

    rows: tuple[str, ...] = ()
    held_out_rows: tuple[str, ...] = ()

    def word(self, rng: Random, values: Values, *, held_out: bool) -> str:
        """State the rule in words."""
        wordings = self.held_out_wordings if held_out else self.wordings
        row = rng.choice(self.held_out_rows if held_out else self.rows)
        joint = rng.choice(_HELD_OUT_JOINTS if held_out else _JOINTS)
        shown = {name: value for name, value in values.items() if name != "table"}
        lines = [row.format(key=key, value=value, **shown) for key, value in entries(values)]
        start = joint if joint.startswith("\n") else " "
        table = start + joint.join(lines) + rng.choice(("", "."))
        return expand(rng.choice(wordings), rng).format(table=table, **shown)


def tabulate(pairs: Sequence[tuple[str, str]]) -> str:
    """Return a table as one value."""
    return ";".join(f"{key}={value}" for key, value in pairs)


def entries(values: Values) -> list[tuple[str, str]]:
    """Return the rows of a table in their order."""
    pairs = (entry.split("=") for entry in values["table"].split(";"))
    return [(key, value) for key, value in pairs]


def _drawer(
    keys: Sequence[str], results: Sequence[str], **others: Sequence[str]
) -> Callable[[Random], Values]:
    """Return a function that draws a table of 2 to 6 rows with distinct keys and values."""

    def draw(rng: Random) -> Values:
        size = rng.randint(*ROWS)
        pairs = list(zip(rng.sample(keys, size), rng.sample(results, size), strict=True))
        return {
            "table": tabulate(pairs),
            **{name: rng.choice(choices) for name, choices in others.items()},
        }

    return draw


def _asker(
    keys: Sequence[str],
    questions: Sequence[str],
    *,
    answer: str = "{value}",
    naming: Callable[[Random, str], str] = lambda _, key: key,
) -> Callable[[Random, Values], Turn]:
    """Return a function that asks for a row, now and then for one that is not listed."""

    def ask(rng: Random, values: Values) -> Turn:
        rows = dict(entries(values))
        key = rng.choice(list(rows))
        result = answer.format(value=rows[key], **{**values, "key": key})
        unlisted = [other for other in keys if other not in rows]
        if unlisted and rng.random() < _UNLISTED_SHARE:
            key, result = rng.choice(unlisted), UNKNOWN
        question = rng.choice(questions).format(key=naming(rng, key), item=rng.choice(ITEMS))
        return Turn(question, result, UNKNOWN)

    return ask


def _trigger(rng: Random, department: str) -> str:
    return rng.choice((department, *DEPARTMENTS[department]))


def _member(rng: Random, category: str) -> str:
    return rng.choice(CATEGORIES[category])


ROUTES: Final = Table(
    name="routes",
    draw=_drawer(TOPICS, CODES),
    ask=_asker(
        TOPICS,
        (
            "{key}",
            "I have a question about {key}.",
            "{key} problem with my {item}",
            "Please help: {key}",
            "It is about {key} and the {item}.",
            "About the {item}: {key}?",
            "My {item}: {key}",
            "Who can help with {key}?",
        ),
        naming=_trigger,
    ),
    wordings=(
        "<Answer|Reply to> <each|every> <message|ticket> with <its|the> <queue|code>:{table}",
        "<Route|Sort> <each|every> <message|ticket>. <Reply|Answer> only with the code.{table}",
        "<Sort|Route> the <tickets|messages|mail>:{table}",
        "<Give|Say|Write> the <queue|code> <for|of> <each|every> <message|ticket>.{table}",
        "<Codes|Queues|Routes|The codes|The queues>:{table}",
        "<Label|Sort> the mail with these <codes|queues>:{table}",
        "Use these <codes|queues> for <the|all> <messages|tickets>:{table}",
        "<The table|This table> <has|gives> the <codes|queues>.{table}",
        "You <sort|route> <messages|tickets|mail>. Your answer is one code.{table}",
        "<Send|Route> <messages|tickets|mail> to these queues:{table}",
        "<Find|Read> what the <message|ticket> is about and <say|write|give> the code.{table}",
        "Every answer is the code of a queue:{table}",
        "<Messages|Tickets> have <codes|queues>.{table}\nSay the <code|queue> only.",
        "# <Codes|Queues|Routes>{table}",
    ),
    held_out_wordings=(
        "Read <each|every> message and <give|write> the code of its queue.{table}",
        "The queues for the mail:{table}",
        "You answer <tickets|messages> with codes only:{table}",
        "<Reply|Answer> with the queue. The codes:{table}",
        "<Sort|Route> the <messages|tickets> by this table.{table}",
        "<Find|Say> the queue for the <message|ticket>:{table}",
    ),
    rows=(
        "{key} go to {value}",
        "{key} belong to {value}",
        "{key} are sent to {value}",
        "{key} use {value}",
        "{key} = {value}",
        "{key}: {value}",
        "{key} -> {value}",
        "for {key} use {value}",
        "{key} get {value}",
        "{key} is {value}",
        "send {key} to {value}",
        "{key} {value}",
        "{value} for {key}",
        "if it is about {key}, say {value}",
    ),
    held_out_rows=(
        "{key} to {value}",
        "use {value} for {key}",
        "say {value} for {key}",
        "{key} are {value}",
        "for {key}: {value}",
    ),
)

GLOSSARY: Final = Table(
    name="glossary",
    draw=_drawer(ITEMS, (*NONCE, *FREE[: len(FREE) // 2])),
    ask=_asker(
        ITEMS,
        (
            "{key}",
            "Translate {key}.",
            "What is {key}?",
            "the word {key}",
            "{key}?",
            "How do you say {key}?",
            "What does {key} mean?",
            "{key}, please",
        ),
    ),
    wordings=(
        "<Translate|Change> <the|each|every> word with this <glossary|table>:{table}",
        "You <translate|change> words. Use <these|this table>:{table}",
        "<Glossary|Words|The words|The glossary|Our words>:{table}",
        "<Use|Read> <this|the> <glossary|table>:{table}",
        "<Translate|Answer with the table>:{table}",
        "Our language has other words:{table}",
        "We have our own words for things.{table}",
        "<Answer|Reply> with <our|the other> word:{table}",
        "The user names a thing. <Say|Write|Give> our word for it.{table}",
        "<Each|Every> answer is one word of <this|the> glossary.{table}",
        "You are a translator. The words are:{table}",
        "# <Glossary|Words>{table}",
        "These are the words of our language:{table}\n<Translate|Answer> with them.",
    ),
    held_out_wordings=(
        "Read the glossary and <translate|change> the word:{table}",
        "The user names a word. Use <this|the> table:{table}",
        "You are a translator with <this|the> glossary.{table}",
        "Our own words for <these|the> things are:{table}",
        "<Say|Give> the word of our language:{table}",
    ),
    rows=(
        "{key} = {value}",
        "{key} means {value}",
        "{key} is called {value}",
        "{key} becomes {value}",
        "{key}: {value}",
        "{key} -> {value}",
        "{key} is {value}",
        "say {value} for {key}",
        "for {key} say {value}",
        "{key} {value}",
        "we say {value} and not {key}",
        "our word for {key} is {value}",
    ),
    held_out_rows=(
        "{key} means {value} here",
        "write {value} for {key}",
        "for {key}: {value}",
        "our {key} is called {value}",
    ),
)

PRICES: Final = Table(
    name="prices",
    draw=_drawer(ITEMS, NUMBERS[1:], currency=CURRENCIES),
    ask=_asker(
        ITEMS,
        (
            "How much is the {key}?",
            "price of the {key}",
            "I want to buy a {key}.",
            "{key}",
            "The {key}?",
            "What does the {key} cost?",
            "Can I buy the {key}?",
            "the {key}, please",
        ),
        answer="{value} {currency}",
    ),
    wordings=(
        "You run the shop. <The prices|Prices> <in|are in> {currency}:{table}",
        "<Price list|The price list|Our prices> in {currency}:{table}",
        "<Answer|Reply> with the price in {currency}:{table}",
        "<Prices|All prices|Shop prices> in {currency}.{table}",
        "<In|All in> {currency}:{table}",
        "We sell <things|products> for {currency}:{table}",
        "<Give|Say|Write> the price <of|for> <each|the> product. All in {currency}.{table}",
        "The user names a product. Say what it costs in {currency}.{table}",
        "<Every|Each> answer is <a|the> price in {currency}.{table}",
        "You sell <products|things>. People pay in {currency}.{table}",
        "# <Prices|Price list> in {currency}{table}",
        "These are our prices:{table}\nPrices are in {currency}.",
        "What our <products|things> cost:{table}\nSay the price in {currency}.",
    ),
    held_out_wordings=(
        "The shop has <these|this list of> prices in {currency}:{table}",
        "Say <the|our> price in {currency}:{table}",
        "Our products and what each costs in {currency}:{table}",
        "People ask for <prices|the price>. Answer in {currency}.{table}",
        "You give prices. <All|Prices> are in {currency}.{table}",
    ),
    rows=(
        "{key} costs {value}",
        "{key} is {value}",
        "{key} sells for {value}",
        "{key} goes for {value}",
        "{key}: {value}",
        "{key} = {value}",
        "{key} {value}",
        "{key} at {value}",
        "the {key} costs {value}",
        "{value} for the {key}",
        "{key} for {value}",
        "a {key} is {value}",
        "{key}: {value} {currency}",
        "the price of the {key} is {value} {currency}",
    ),
    held_out_rows=(
        "a {key} costs {value}",
        "the {key} is {value} {currency}",
        "{value} {currency} for the {key}",
        "a {key} goes for {value}",
    ),
)

CALENDAR: Final = Table(
    name="calendar",
    draw=_drawer(DAYS, (*NAMES, *CITIES)),
    ask=_asker(
        DAYS,
        ("{key}", "What is on {key}?", "And on {key}?", "Tell me about {key}.", "{key}, please"),
    ),
    wordings=(
        "<Answer|Reply> with the plan of the day:{table}",
        "<The plan|Plan|Our plan|Calendar|The calendar>:{table}",
        "You know the <plan|calendar>.{table}",
        "<Say|Give|Write> what is on <that|the> day:{table}",
        "The user names a day. <Say|Give> what is <on it|in the plan>.{table}",
        "<Each|Every> day has <a plan|one name>:{table}",
        "<This is|Here is> the plan of the week:{table}",
        "# <Plan|Calendar|Week>{table}",
        "For <each|every> day there is <a name|one answer>:{table}",
    ),
    held_out_wordings=(
        "The week has this plan:{table}",
        "<Answer|Reply> with the name for the day:{table}",
        "<Here is|You know> the calendar of the week.{table}",
        "<Say|Give> what the plan has for <that|each> day:{table}",
    ),
    rows=(
        "{key}: {value}",
        "{key} is {value}",
        "on {key} {value}",
        "{key} = {value}",
        "{key} -> {value}",
        "{value} on {key}",
        "{key} belongs to {value}",
        "{key} is for {value}",
        "on {key} it is {value}",
        "{key} {value}",
    ),
    held_out_rows=("{value} is on {key}", "on {key}: {value}", "for {key} it is {value}"),
)


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

ROSTER: Final = Table(
    name="roster",
    draw=_drawer(NAMES, CITIES),
    ask=_asker(NAMES, ("{key}", "Where is {key}?", "{key}, please", "What about {key}?")),
    wordings=(
        "<Answer|Reply> with the city of the person:{table}",
        "You know where <people|the people> are.{table}",
        "The <plan|list> of our people:{table}",
        "The user names a person. Say the city.{table}",
    ),
    held_out_wordings=(),
    rows=("{key} is in {value}", "{key}: {value}", "{key} -> {value}", "{key} works in {value}"),
)

SHELVES: Final = Table(
    name="shelves",
    draw=_drawer(list(CATEGORIES), CODES),
    ask=_asker(
        list(CATEGORIES),
        ("{key}", "Where is the {key}?", "I am looking for the {key}.", "{key}, please"),
        naming=_member,
    ),
    wordings=(
        "<Say|Give> the code of the item:{table}",
        "Our <things|products> have codes.{table}",
        "Find what the item is and say the code.{table}",
    ),
    held_out_wordings=(),
    rows=("{key} are in {value}", "{key}: {value}", "{key} -> {value}", "{value} for {key}"),
)
