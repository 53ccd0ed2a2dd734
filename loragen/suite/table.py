"""Table: a family whose prompt lists keys with values; a message names one of the keys.

A table is worded by an introduction, the form of a row, and what stands between rows. Each has
training and held-out forms, so a held-out wording is new in all three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, expand
from loragen.suite.words import ITEMS

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


def row_count(values: Values) -> int:
    """Return how many rows the table of a prompt has; 0 without one."""
    return len(entries(values)) if "table" in values else 0


def drawer(
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


def asker(
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
