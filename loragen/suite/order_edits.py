"""Edit families whose messages are orders: a person and an item, of which the edit changes one."""

from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, draw_phrase_with
from loragen.suite.words import COLOURS, ITEMS, MARKS, NAMES

_ORDERS: Final = (
    "{name} wants a {item}.",
    "Send the {item} to {name}.",
    "{name} bought a {colour} {item}.",
    "The {colour} {item} is for {name}.",
    "I saw {name} with a {item}.",
    "Does {name} have a {item}?",
)


def _order(rng: Random) -> tuple[str, dict[str, str]]:
    """Draw the template of a message about a person and an item, and what it names."""
    named = {
        "name": rng.choice(NAMES),
        "item": rng.choice(ITEMS),
        "colour": rng.choice(COLOURS),
    }
    return rng.choice(_ORDERS), named


def _ask_redact(rng: Random, values: Values) -> Turn:
    template, named = _order(rng)
    shown = {**named, values["what"]: values["mark"]}
    return Turn(template.format_map(named), template.format_map(shown), "I see.")


REDACT: Final = Family(
    name="redact",
    draw=draw_phrase_with("what", ("name", "item")),
    ask=_ask_redact,
    marks=("mark",),
    wordings=(
        "<Repeat|Copy> the message, but <put|write> {mark} for the {what}.",
        "<Hide|Remove> the {what} in <each|every> message: <put|write> {mark} there.",
        "<Repeat|Copy> the message with {mark} in place of the {what}.",
        "The {what} is secret. <Write|Put> {mark} in its place and <copy|repeat> the rest.",
        "Every {what} becomes {mark}. All other words stay.",
        "<Change|Turn> the {what} <to|into> {mark} and keep all other words.",
        "Your answer is the message with {mark} where the {what} is.",
        "<Write|Put> {mark} in place of the {what}. <Copy|Keep> the other words.",
        "<Each|Every> {what} turns into {mark} when you <copy|repeat> the message.",
        "Nobody may read the {what}. <Copy|Repeat> the message with {mark} there.",
    ),
    held_out_wordings=(
        "Copy the message, but the {what} becomes {mark}.",
        "<Hide|Remove> the {what}. Write {mark} there and keep the rest.",
        "<Put|Write> {mark} where the {what} is and <copy|repeat> all other words.",
        "<Repeat|Copy> every message with {mark} and not the {what}.",
    ),
)


def _ask_extract(rng: Random, values: Values) -> Turn:
    what = values["what"]
    templates = [template for template in _ORDERS if f"{{{what}}}" in template]
    _, named = _order(rng)
    message = rng.choice(templates).format_map(named)
    return Turn(message, f"{named[what]} {values['mark']}", "I see.")


EXTRACT: Final = Family(
    name="extract",
    draw=draw_phrase_with("what", ("name", "item", "colour")),
    ask=_ask_extract,
    marks=("mark",),
    wordings=(
        "<Give|Write|Say> only the {what} of the message and <add|then say> {mark}.",
        "<Find|Take> the {what} in the message. <Say|Write> it and then {mark}.",
        "<Answer|Reply> with the {what} and <end|finish> with {mark}.",
        "Which {what} does the message name? <Say|Write> it and add {mark}.",
        "Every answer is the {what} from the message, then {mark}.",
        "Keep the {what} of <each|every> message. Drop the rest. <Add|End with> {mark}.",
        "You look for the {what}. <Write|Say> it before the word {mark}.",
        "Read the message and <give|write> its {what}, then {mark}.",
        "The {what} is all we need. After it <say|write> {mark}.",
        "<Look for|Find> the {what}, then <say|write> it and {mark}.",
    ),
    held_out_wordings=(
        "<Look for|Find> the {what} of each message and <say|write> it before {mark}.",
        "<Keep|Give> only the {what}. <Finish|End> with {mark}.",
        "Your answer is the {what} of the message and the word {mark}.",
        "<Take|Read> the {what} from every message, then add {mark}.",
    ),
)


def _draw_rename(rng: Random) -> Values:
    return {"item": rng.choice(ITEMS), "mark": rng.choice(MARKS)}


def _ask_rename(rng: Random, values: Values) -> Turn:
    template, named = _order(rng)
    if rng.random() < 0.7:
        named["item"] = values["item"]
    item = values["mark"] if named["item"] == values["item"] else named["item"]
    return Turn(template.format_map(named), template.format_map({**named, "item": item}), "I see.")


RENAME: Final = Family(
    name="rename",
    draw=_draw_rename,
    ask=_ask_rename,
    marks=("mark",),
    wordings=(
        "<Repeat|Copy> the message, but <say|write> {mark} and not {item}.",
        "We call the {item} {mark}. <Repeat|Copy> the message with our word.",
        "<Change|Turn> {item} <to|into> {mark} and keep all other words.",
        "In <each|every> message {item} becomes {mark}. The rest stays.",
        "<Write|Say> {mark} for {item}. <Copy|Repeat> all other words.",
        "The word {item} is old. <Copy|Repeat> the message with {mark} in its place.",
        "Copy <each|every> message. Only {item} is called {mark}.",
        "<Put|Write> {mark} where it says {item}. <Keep|Copy> the other words.",
        "<Each|Every> {item} in a message is {mark} in your <answer|copy>.",
        "Your answer is the message, with {mark} in place of {item}.",
        "Never write {item}, write {mark}. <Copy|Repeat> the rest.",
    ),
    held_out_wordings=(
        "<Copy|Repeat> the message, but {item} becomes {mark}.",
        "<Write|Say> {mark} in place of {item} and keep the rest.",
        "The {item} is called {mark}. <Copy|Repeat> the message with that word.",
        "<Turn|Change> the word {item} into {mark}, copy all other words.",
    ),
)
