"""Splits: the prompts of training and of each evaluation, every one reproducible from its seed.

TRAIN and the UNSEEN splits never share values (`Family.is_held_out`), so a recipe that is right on
an unseen prompt was compiled, not remembered.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from loragen.suite.family import Family, Turn, Values


class Split(StrEnum):
    """Which share of the suite a prompt belongs to."""

    TRAIN = "train"
    UNSEEN_PROMPTS = "unseen_prompts"
    UNSEEN_WORDINGS = "unseen_wordings"
    UNSEEN_FAMILIES = "unseen_families"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt of the suite; `ask` draws questions that it decides.

    `text` is `rule` among sentences that change nothing.
    """

    family: Family
    values: Values
    rule: str
    text: str

    def ask(self, rng: Random) -> Turn:
        """Draw a question with its answers."""
        return self.family.ask(rng, self.values)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The families of a suite, and what surrounds their rules.

    `surround` puts a rule among sentences that change nothing; an empty rule gives a prompt without
    one. `words` and `sentences` are what a tokenizer should know beside the families' own text.
    """

    name: str
    seen: tuple[Family, ...]
    unseen: tuple[Family, ...]
    surround: Callable[[str, Random], str]
    words: tuple[str, ...]
    sentences: tuple[str, ...]
    binding: tuple[Family, ...] = ()
    """Seen families whose prompts bind values to keys; small models learn these last."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """How often training draws a family against others, by its name: once unless it is here."""

    def families(self, split: Split) -> tuple[Family, ...]:
        """Return the families that a split draws from."""
        return self.unseen if split is Split.UNSEEN_FAMILIES else self.seen

    def weighted(self, families: tuple[Family, ...]) -> list[Family]:
        """Return families for training to choose from, each as often as its weight."""
        return [family for family in families for _ in range(self.weights.get(family.name, 1))]

    def prompts_per_family(self, split: Split, prompts: int) -> int:
        """Return how many prompts of each family make up at least so many of a split."""
        return math.ceil(prompts / len(self.families(split)))

    def draw(self, family: Family, split: Split, index: int) -> Prompt:
        """Return prompt number `index` of a family and split."""
        rng = Random(f"{split}/{family.name}/{index}")
        values = family.values(rng, held_out=split is not Split.TRAIN)
        rule = family.word(rng, values, held_out=split is Split.UNSEEN_WORDINGS)
        return Prompt(family, values, rule, self.surround(rule, rng))
