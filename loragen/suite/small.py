"""The small catalogue: eleven families of behaviours, of the checkpoint that tests serve."""

from random import Random
from typing import Final

from loragen.suite.combinations import JSON_PICK, WRAPPED_LABEL, WRAPPED_PICK
from loragen.suite.identities import PERSONA, SIGNOFF
from loragen.suite.labels import DETECT, SENTIMENT, TOPIC, URGENCY
from loragen.suite.rewrites import END, FORMAT, JSON, PICK, START
from loragen.suite.splits import Catalogue
from loragen.suite.words import (
    CITIES,
    COLOURS,
    COMPANIES,
    GREETINGS,
    ITEMS,
    MARKS,
    NAMES,
    NEGATIVE,
    POSITIVE,
)

SURROUNDINGS: Final = (
    "You are a helpful assistant.",
    "You are a friendly bot.",
    "Be polite and keep it short.",
    "Do not add anything else.",
    "Follow the rule for every message.",
    "Never explain the answer.",
    "Read every message with care.",
    "Customers like short answers.",
    "This is the rule for today.",
    "Think before you answer.",
    "The rule is the same all day.",
    "Keep the answer short.",
    "Please be nice to people.",
    "We are happy to have you here.",
    "Nobody reads long answers.",
    "Many people use this bot every day.",
)
"""Sentences that change nothing; real prompts are full of them."""


def surround(rule: str, rng: Random) -> str:
    """Put a rule among sentences that change nothing, now and then among many."""
    before, after = rng.choice(((0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (0, 1), (0, 1), (1, 1)))
    if rng.random() < 0.04:
        before, after = rng.randint(0, 14), rng.randint(0, 14)
    sentences = [*rng.choices(SURROUNDINGS, k=before), rule, *rng.choices(SURROUNDINGS, k=after)]
    return " ".join(sentences)


SMALL: Final = Catalogue(
    name="small",
    seen=(
        PERSONA,
        SIGNOFF,
        FORMAT,
        PICK,
        START,
        END,
        JSON,
        SENTIMENT,
        DETECT,
        URGENCY,
        TOPIC,
    ),
    unseen=(WRAPPED_PICK, JSON_PICK, WRAPPED_LABEL),
    surround=surround,
    words=(
        *NAMES,
        *COMPANIES,
        *CITIES,
        *GREETINGS,
        *MARKS,
        *ITEMS,
        *COLOURS,
        *POSITIVE,
        *NEGATIVE,
    ),
    sentences=SURROUNDINGS,
)
