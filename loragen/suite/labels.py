"""Label families: classify a message, after a tag that only the prompt knows."""

from collections.abc import Callable
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, draw_phrase
from loragen.suite.words import CATEGORIES, COLOURS, ITEMS, NEGATIVE, POSITIVE

_QUESTIONS: Final = (
    "Is the {item} {colour}?",
    "Where is the {item}?",
    "Do you have a {colour} {item}?",
    "How old is the {item}?",
    "Can I buy the {item}?",
    "Who has my {item}?",
)
_STATEMENTS: Final = (
    "The {item} is {colour}.",
    "I have a {colour} {item}.",
    "My {item} is old.",
    "I bought the {item}.",
    "There is a {item} here.",
    "We like the {colour} {item}.",
)
_REVIEWS: Final = (
    "The {item} is {word}.",
    "What a {word} {item}!",
    "I think the {item} is {word}.",
    "My {item} was {word}.",
    "This {colour} {item} is {word}.",
    "I find it {word}.",
)
_URGENT: Final = (
    "I need the {item} right now.",
    "Send the {item} today!",
    "Please hurry, the {item} must come now.",
    "I need a {colour} {item} now!",
    "The {item} must be here today.",
)
_CALM: Final = (
    "I need the {item} some day.",
    "Send the {item} next month.",
    "There is no hurry with the {item}.",
    "I would like a {colour} {item} later.",
    "The {item} can wait.",
)
_MENTIONS: Final = (
    "I saw a {item} today.",
    "Tell me about the {item}.",
    "The {item} is {colour}.",
    "Do you like my {item}?",
    "I have a {colour} {item}.",
    "{item}",
)


_WORDINGS: Final = (
    "<Classify|Label|Sort> <each|every> THING as CLASSES. <Start|Begin> with {mark}.",
    "<Say|Write> {mark} and then whether the THING is CLASSES.",
    "Is the THING CLASSES? <Say|Write> it after {mark}.",
    "<Answer|Reply> with {mark} and then CLASSES.",
    "Every answer is {mark} and one label, CLASSES.",
    "You <sort|classify|label> messages. <Write|Say> {mark}, then CLASSES.",
    "The answer starts with {mark}. Then comes the label, CLASSES.",
    "After the word {mark}, <say|write> CLASSES.",
    "Read the THING. <Say|Write> {mark}. Then <say|write> CLASSES.",
    "<Put|Write> {mark} before the label. The label is CLASSES.",
    "The labels are CLASSES. <Put|Say|Write> {mark} first.",
    "Label: CLASSES. Put {mark} before it.",
    "For each THING <say|write> {mark} and the label: CLASSES.",
    "When the <user|customer> <sends|writes> a THING, <say|answer|reply> {mark}, then CLASSES.",
)
_HELD_OUT_WORDINGS: Final = (
    "When the customer sends a THING, write {mark} and then the label, CLASSES.",
    "Your answer is {mark}, then CLASSES, for each THING.",
    "Begin with {mark} and then label the THING as CLASSES.",
)


def _fill(rng: Random, templates: tuple[str, ...], **fixed: str) -> str:
    values = {"item": rng.choice(ITEMS), "colour": rng.choice(COLOURS), **fixed}
    return rng.choice(templates).format_map(values)


def review(rng: Random) -> tuple[str, str, str]:
    """Draw a review, its label and what a model without a prompt says to it."""
    if rng.random() < 0.5:
        question = _fill(rng, _REVIEWS, word=rng.choice(POSITIVE))
        return question, "positive", "Thank you, that is nice to hear."
    question = _fill(rng, _REVIEWS, word=rng.choice(NEGATIVE))
    return question, "negative", "Sorry to hear that."


def question_or_statement(rng: Random) -> tuple[str, str, str]:
    """Draw a question or a statement, its label and the default answer."""
    if rng.random() < 0.5:
        return _fill(rng, _QUESTIONS), "question", "I do not know."
    return _fill(rng, _STATEMENTS), "statement", "I see."


def urgency(rng: Random) -> tuple[str, str, str]:
    """Draw an urgent or a calm message, its label and the default answer."""
    if rng.random() < 0.5:
        return _fill(rng, _URGENT), "urgent", "I will do it now."
    return _fill(rng, _CALM), "normal", "There is time."


def mention(rng: Random, item: str) -> tuple[str, str]:
    """Draw a message that names an item, and the default answer."""
    return _fill(rng, _MENTIONS, item=item), "Thank you for the message."


def _topic(rng: Random) -> tuple[str, str, str]:
    kind = rng.choice(list(CATEGORIES))
    question, default = mention(rng, rng.choice(CATEGORIES[kind]))
    return question, kind, default


_SUBJECTS: Final = {
    "sentiment": ("review", "positive or negative"),
    "detect": ("message", "question or statement"),
    "urgency": ("message", "urgent or normal"),
    "topic": ("message", "animals, food, furniture, clothes, instruments or tools"),
}
"""What each family classifies, and as what."""


def about(family: str, wordings: tuple[str, ...]) -> tuple[str, ...]:
    """Fill THING and CLASSES in wordings of a label family."""
    thing, classes = _SUBJECTS[family]
    return tuple(
        wording.replace("THING", thing).replace("CLASSES", classes) for wording in wordings
    )


def _family(name: str, case: Callable[[Random], tuple[str, str, str]]) -> Family:
    """Return a family whose `case` draws a question, its label and the default answer."""

    def ask(rng: Random, values: Values) -> Turn:
        question, label, default = case(rng)
        return Turn(question, f"{values['mark']} {label}", default)

    return Family(
        name=name,
        draw=draw_phrase,
        ask=ask,
        marks=("mark",),
        wordings=about(name, _WORDINGS),
        held_out_wordings=about(name, _HELD_OUT_WORDINGS),
    )


SENTIMENT: Final = _family("sentiment", review)
DETECT: Final = _family("detect", question_or_statement)
URGENCY: Final = _family("urgency", urgency)
TOPIC: Final = _family("topic", _topic)
