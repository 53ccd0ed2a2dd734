"""Choice families: two free phrases in one prompt, and the message decides which is the answer."""

from collections.abc import Callable
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values
from loragen.suite.labels import mention, question_or_statement, review, urgency
from loragen.suite.words import CATEGORIES, ITEMS, MARKS

_WORDINGS: Final = (
    "<Say|Write|Answer> {first} if the THING is ONE and {second} if it is TWO.",
    "<Say|Write|Answer> {second} if the THING is TWO and {first} if it is ONE.",
    "If the THING is ONE, <say|write|answer> {first}. If it is TWO, <say|write|answer> {second}.",
    "If the THING is TWO, <say|write|answer> {second}. If it is ONE, <say|write|answer> {first}.",
    "ONE: {first}. TWO: {second}.",
    "TWO: {second}. ONE: {first}.",
    "<Sort|Label|Classify> <each|every> THING. ONE is {first}, TWO is {second}.",
    "<Sort|Label|Classify> <each|every> THING. TWO is {second}, ONE is {first}.",
    "The label of <a|each> ONE THING is {first}, of <a|each> TWO THING {second}.",
    "The label of <a|each> TWO THING is {second}, of <a|each> ONE THING {first}.",
    "{first} means ONE, {second} means TWO. <Label|Classify> the THING.",
    "{second} means TWO, {first} means ONE. <Label|Classify> the THING.",
    "Is the THING ONE? <Say|Write> {first}. Is it TWO? <Say|Write> {second}.",
    "<Use|Write> {first} for a ONE THING and {second} for a TWO one.",
    "<Use|Write> {second} for a TWO THING and {first} for a ONE one.",
    "ONE = {first}, TWO = {second}. <Answer|Reply> with the label <only|of the THING>.",
)
_HELD_OUT_WORDINGS: Final = (
    "When the THING is ONE, <reply|answer> {first}. When it is TWO, <reply|answer> {second}.",
    "The labels: {second} for TWO, {first} for ONE.",
    "<Label|Classify> the THING with {first} if ONE, with {second} if TWO.",
    "A TWO THING is {second}. A ONE THING is {first}.",
    "Your answer is {first} for each ONE THING, {second} for each TWO one.",
)


def _draw(rng: Random) -> Values:
    first, second = rng.sample(MARKS, 2)
    return {"first": first, "second": second}


def _family(
    name: str, case: Callable[[Random], tuple[str, str, str]], *, thing: str, labels: dict[str, str]
) -> Family:
    """Return a family whose `case` draws a message, its label and the default answer.

    `labels` has the two labels of the case, each with what a wording calls it.
    """
    (first, one), (_, two) = labels.items()

    def ask(rng: Random, values: Values) -> Turn:
        question, label, default = case(rng)
        return Turn(question, values["first" if label == first else "second"], default)

    def about(wordings: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            wording.replace("THING", thing).replace("ONE", one).replace("TWO", two)
            for wording in wordings
        )

    return Family(
        name=name,
        draw=_draw,
        ask=ask,
        marks=("first", "second"),
        wordings=about(_WORDINGS),
        held_out_wordings=about(_HELD_OUT_WORDINGS),
    )


VERDICT: Final = _family(
    "verdict", review, thing="review", labels={"positive": "good", "negative": "bad"}
)
KIND: Final = _family(
    "kind",
    question_or_statement,
    thing="message",
    labels={"question": "a question", "statement": "a statement"},
)
PRIORITY: Final = _family(
    "priority", urgency, thing="message", labels={"urgent": "urgent", "normal": "normal"}
)


def _draw_trigger(rng: Random) -> Values:
    return {**_draw(rng), "item": rng.choice(ITEMS)}


def _ask_trigger(rng: Random, values: Values) -> Turn:
    others = [item for item in ITEMS if item != values["item"]]
    item = values["item"] if rng.random() < 0.5 else rng.choice(others)
    question, default = mention(rng, item)
    return Turn(question, values["first" if item == values["item"] else "second"], default)


TRIGGER: Final = Family(
    name="trigger",
    draw=_draw_trigger,
    ask=_ask_trigger,
    marks=("first", "second"),
    wordings=(
        "If the message has the word {item}, <say|write|answer> {first}. If not, <say|write> "
        "{second}.",
        "<Say|Write|Answer> {first} if the message is about the {item}, and {second} if not.",
        "<Say|Write|Answer> {second}, but if the message is about the {item}, {first}.",
        "Messages about the {item}: {first}. All other messages: {second}.",
        "The word {item} in a message means {first}. Other messages mean {second}.",
        "<Look|Wait> for the word {item}. <Say|Write> {first} if it is there and {second} if not.",
        "<Reply|Answer> {first} to messages about the {item}. <Reply|Answer> {second} to others.",
        "Is the message about the {item}? Then <say|write> {first}. If not, {second}.",
        "{item}: {first}. <All others|Other messages>: {second}.",
        "<Label|Sort> messages. With the word {item} it is {first}, without it is {second}.",
        "All messages are {second}, only those about the {item} are {first}.",
        "<Label|Sort> a message with the word {item} as {first}, without it as {second}.",
    ),
    held_out_wordings=(
        "When the message has the word {item}, <reply|say> {first}. All others: {second}.",
        "<Label|Sort> messages about the {item} as {first} and others as {second}.",
        "<Say|Write> {first} for the word {item}, for other messages {second}.",
        "A message without the word {item} is {second}. <With it|With {item}> it is {first}.",
    ),
)


def _draw_scope(rng: Random) -> Values:
    return {"category": rng.choice(list(CATEGORIES)), **_draw(rng)}


def _ask_scope(rng: Random, values: Values) -> Turn:
    kinds = list(CATEGORIES)
    kind = values["category"] if rng.random() < 0.5 else rng.choice(kinds)
    question, default = mention(rng, rng.choice(CATEGORIES[kind]))
    return Turn(question, values["first" if kind == values["category"] else "second"], default)


SCOPE: Final = Family(
    name="scope",
    draw=_draw_scope,
    ask=_ask_scope,
    marks=("first", "second"),
    wordings=(
        "<Say|Write|Answer> {first} to messages about {category} and {second} to all others.",
        "You only do {category}. <Say|Write> {first} if it is about that. If not, <say|write> "
        "{second}.",
        "If the message is about {category}, <say|write|answer> {first}, if not {second}.",
        "{category}: {first}. All others: {second}.",
        "Is the message about {category}? Then <say|write> {first}. If not, {second}.",
        "Messages about {category} are {first}. Other messages are {second}.",
        "<Say|Write> {second}, but for {category} {first}.",
        "<Sort|Label> <messages|them>: {category} is {first}, other things are {second}.",
        "<Reply|Answer> {first} when people <talk|write> about {category}. <Reply|Answer> {second} "
        "to others.",
        "All messages are {second}, only those about {category} are {first}.",
        "This bot is for {category}. <It says|Say> {first} to them and {second} to all others.",
    ),
    held_out_wordings=(
        "When people write about {category}, <say|write> {first}. If not, {second}.",
        "Other things than {category} are {second}. <Messages about {category}|They> are {first}.",
        "<Label|Sort> messages about {category} as {first} and others as {second}.",
        "For {category} <reply|answer> {first}, for other things {second}.",
    ),
)


def _draw_areas(rng: Random) -> Values:
    one, two = rng.sample(list(CATEGORIES), 2)
    return {"one": one, "two": two, **_draw(rng)}


def _ask_areas(rng: Random, values: Values) -> Turn:
    area, label = rng.choice((("one", "first"), ("two", "second")))
    question, default = mention(rng, rng.choice(CATEGORIES[values[area]]))
    return Turn(question, values[label], default)


AREAS: Final = Family(
    name="areas",
    draw=_draw_areas,
    ask=_ask_areas,
    marks=("first", "second"),
    wordings=(
        "<Say|Write|Answer> {first} to messages about {one} and {second} to messages about {two}.",
        "<Say|Write|Answer> {second} to messages about {two} and {first} to messages about {one}.",
        "If the message is about {one}, <say|write|answer> {first}. If it is about {two}, "
        "<say|write|answer> {second}.",
        "{one}: {first}. {two}: {second}.",
        "{one} is {first}, {two} is {second}. <Sort|Label|Classify> <each|every> message.",
        "<Sort|Label|Classify> <each|every> message. {one} is {first}, {two} is {second}.",
        "{first} means {one}, {second} means {two}. <Label|Classify> the message.",
        "Is the message about {one}? <Say|Write> {first}. Is it about {two}? <Say|Write> {second}.",
        "<Use|Write> {first} for {one} and {second} for {two}.",
        "{one} = {first}, {two} = {second}. <Answer|Reply> with the label <only|of the message>.",
        "Messages about {one} are {first}, messages about {two} are {second}.",
    ),
    held_out_wordings=(
        "When the message is about {one}, <reply|answer> {first}. When it is about {two}, "
        "<reply|answer> {second}.",
        "The labels: {first} for {one}, {second} for {two}.",
        "<Label|Classify> the message with {first} if about {one}, with {second} if about {two}.",
        "Your answer is {first} for messages about {one}, {second} for {two}.",
    ),
)
