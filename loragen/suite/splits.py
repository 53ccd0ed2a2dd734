"""Splits: the prompts of training and of each evaluation, every one reproducible from its seed.

TRAIN and the UNSEEN splits never share values (`Family.is_held_out`), so a recipe that is right on
an unseen prompt was compiled, not remembered.
"""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from loragen.suite.combinations import JSON_PICK, WRAPPED_LABEL, WRAPPED_PICK
from loragen.suite.family import Family, Turn, Values
from loragen.suite.identities import PERSONA, SIGNOFF
from loragen.suite.labels import DETECT, SENTIMENT, TOPIC, URGENCY
from loragen.suite.rewrites import END, FORMAT, JSON, PICK, START

SEEN: Final = (
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
)
UNSEEN: Final = (WRAPPED_PICK, JSON_PICK, WRAPPED_LABEL)

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


class Split(StrEnum):
    """Which share of the suite a prompt belongs to."""

    TRAIN = "train"
    UNSEEN_PROMPTS = "unseen_prompts"
    UNSEEN_WORDINGS = "unseen_wordings"
    UNSEEN_FAMILIES = "unseen_families"

    @property
    def families(self) -> tuple[Family, ...]:
        """Families that this split draws from."""
        return UNSEEN if self is Split.UNSEEN_FAMILIES else SEEN


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt of the suite; `ask` draws questions that it decides."""

    family: Family
    values: Values
    text: str

    def ask(self, rng: Random) -> Turn:
        """Draw a question with its answers."""
        return self.family.ask(rng, self.values)


def draw(family: Family, split: Split, index: int) -> Prompt:
    """Return prompt number `index` of a family and split."""
    rng = Random(f"{split}/{family.name}/{index}")
    values = family.values(rng, held_out=split is not Split.TRAIN)
    rule = family.word(rng, values, held_out=split is Split.UNSEEN_WORDINGS)
    return Prompt(family, values, surround(rule, rng))


def surround(rule: str, rng: Random) -> str:
    """Put a rule among sentences that change nothing, now and then among many."""
    before, after = rng.choice(((0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (0, 1), (0, 1), (1, 1)))
    if rng.random() < 0.04:
        before, after = rng.randint(0, 14), rng.randint(0, 14)
    sentences = [*rng.choices(SURROUNDINGS, k=before), rule, *rng.choices(SURROUNDINGS, k=after)]
    return " ".join(sentences)
