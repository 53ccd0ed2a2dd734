"""Pairs: which value a prompt gives to which key, for the families that are about nothing else."""

from typing import Final

from loragen.suite.splits import Prompt
from loragen.suite.table import entries

Pair = tuple[str, str]

OTHER: Final = "other"
"""Key of what all messages get that no other key is for."""


def pairs_of(prompt: Prompt) -> list[Pair]:
    """Return a prompt's keys, each with its value; none for a rule without keys.

    A key is a word of the prompt where it has one, else what it is about in one word.
    """
    values = prompt.values
    if "table" in values:
        return entries(values)
    match values.get("base", prompt.family.name):
        case "verdict":
            return [("good", values["first"]), ("bad", values["second"])]
        case "kind":
            return [("question", values["first"]), ("statement", values["second"])]
        case "priority":
            return [("urgent", values["first"]), ("normal", values["second"])]
        case "trigger":
            return [(values["item"], values["first"]), (OTHER, values["second"])]
        case "scope":
            return [(values["category"], values["first"]), (OTHER, values["second"])]
        case "handoff":
            return [(values["topic"], values["name"]), (OTHER, values["other"])]
        case "rename":
            return [(values["item"], values["mark"])]
        case "facts":
            return [
                ("open", values["opens"]),
                ("close", values["closes"]),
                ("city", values["city"]),
                ("boss", values["name"]),
                ("closed", values["day"]),
                (OTHER, values["mark"]),
            ]
        case _:
            return []
