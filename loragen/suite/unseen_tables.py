"""Unseen families: tables of other things than the trained ones. They occur in evaluation only."""

from random import Random
from typing import Final

from loragen.suite.table import Table, asker, drawer
from loragen.suite.tenant_words import CODES
from loragen.suite.words import CATEGORIES, CITIES, NAMES


def _member(rng: Random, category: str) -> str:
    return rng.choice(CATEGORIES[category])


ROSTER: Final = Table(
    name="roster",
    draw=drawer(NAMES, CITIES),
    ask=asker(NAMES, ("{key}", "Where is {key}?", "{key}, please", "What about {key}?")),
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
    draw=drawer(list(CATEGORIES), CODES),
    ask=asker(
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
