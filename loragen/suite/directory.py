"""Directory: tables of anything to anything, which no wording explains.

The other tables each have keys and values of one kind; a model that saw only those need not read a
table of another kind.
"""

from random import Random
from typing import Final

from loragen.suite.family import Turn, Values
from loragen.suite.table import ROWS, UNKNOWN, Table, entries, tabulate
from loragen.suite.tenant_words import CODES, DAYS, NONCE, NUMBERS, TOPICS
from loragen.suite.words import CITIES, COLOURS, COMPANIES, GREETINGS, ITEMS, MARKS, NAMES

_KEYS: Final = (NAMES, COMPANIES, COLOURS, MARKS, NONCE, CITIES, ITEMS, TOPICS)
_RESULTS: Final = (CODES, NUMBERS, MARKS, COMPANIES, GREETINGS, DAYS, COLOURS, ITEMS, NAMES)


_QUESTIONS: Final = (
    "{key}",
    "{key}?",
    "{key}, please",
    "What about {key}?",
    "Where is {key}?",
    "Tell me about {key}.",
    "Find {key}.",
    "And {key}?",
    "I am looking for {key}.",
    "Who has {key}?",
)


def _draw(rng: Random) -> Values:
    kind = rng.choice(_KEYS)
    size = rng.randint(*ROWS)
    results = rng.sample(rng.choice([words for words in _RESULTS if words is not kind]), size)
    return {"table": tabulate(list(zip(rng.sample(kind, size), results, strict=True)))}


def _ask(rng: Random, values: Values) -> Turn:
    key, result = rng.choice(entries(values))
    question = rng.choice(_QUESTIONS).format(key=key)
    return Turn(question, result, UNKNOWN)


DIRECTORY: Final = Table(
    name="directory",
    draw=_draw,
    ask=_ask,
    wordings=(
        "<Answer|Reply> <from|with> <this|the> <list|table>:{table}",
        "<Use|Read> <this|the> <list|table> <for|in> <every|each> answer:{table}",
        "<The list|The table|Our list|List|Table>:{table}",
        "The user names <one|a word>. <Say|Give|Write> what belongs to it.{table}",
        "<Look it up|Find it> in <the|this> <list|table>:{table}",
        "You <know|have> <this|the> <list|table>.{table}",
        "<Every|Each> answer is in the <list|table>:{table}",
        "What belongs together:{table}",
        "<Say|Give|Write> what stands in the <list|table>:{table}",
        "# <List|Table>{table}",
    ),
    held_out_wordings=(
        "<Here is|This is> the <list|table>.{table}",
        "<Answer|Reply> with the right word of the <list|table>:{table}",
        "Read what belongs to <each|the> word:{table}",
        "The <list|table> has <all|every> answer:{table}",
    ),
    rows=(
        "{key}: {value}",
        "{key} = {value}",
        "{key} -> {value}",
        "{key} is {value}",
        "{key} has {value}",
        "{key} gets {value}",
        "{key} goes with {value}",
        "{key} is in {value}",
        "{value} for {key}",
        "{key} {value}",
        "{key} belongs to {value}",
        "for {key} say {value}",
    ),
    held_out_rows=("{key} is for {value}", "{key} and {value}", "for {key}: {value}"),
)
