"""Pairs: which value a prompt gives to which key, for the families that are about nothing else."""

from typing import Final

from loragen.suite.splits import Prompt
from loragen.suite.table import entries

Pair = tuple[str, str]

OTHER: Final = "other"
"""Key of what all messages get that no other key is for."""

_LABELS: Final = {
    "verdict": ("good", "bad"),
    "kind": ("question", "statement"),
    "priority": ("urgent", "normal"),
}


def pairs_of(prompt: Prompt) -> list[Pair]:
    """Return a prompt's keys, each with its value; none for a rule without keys.

    A key is a word of the prompt where it has one, else what it is about in one word.
    """
    values = prompt.values
    if "table" in values:
        return entries(values)
    match values.get("base", prompt.family.name):
        case "verdict" | "kind" | "priority" as name:
            return list(zip(_LABELS[name], (values["first"], values["second"]), strict=True))
        case "trigger":
            return [(values["item"], values["first"]), (OTHER, values["second"])]
        case "scope":
            return [(values["category"], values["first"]), (OTHER, values["second"])]
        case "areas":
            return [(values["one"], values["first"]), (values["two"], values["second"])]
        case "handoff":
            return [(values["topic"], values["name"]), (OTHER, values["other"])]
        case "rename":
            return [(values["item"], values["mark"])]
        case "persona":
            return [(key, values[key]) for key in ("name", "company", "city", "greeting")]
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
