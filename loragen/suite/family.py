"""Family: one kind of rule that system prompts state, with wordings to state it and questions.

A prompt is drawn in two steps, its values (labels, names, keys ...) and then its text, so that
splits can hold out either: one tenth of all values never occurs in training, whatever the wording.
"""

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from loragen.suite.words import MARKS

Values = Mapping[str, str]

HELD_OUT_SHARE: Final = 10
"""One in this many values belongs to evaluation."""

_CHOICE: Final = re.compile(r"<([^<>]*)>")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, the answer under the prompt, and the answer of a model that read no prompt."""

    question: str
    answer: str
    default: str


@dataclass(frozen=True, slots=True)
class Family:
    """A rule: how its values are drawn, how a prompt words it, what is asked and answered.

    A wording is text with `{value}` slots and `<this|that>` choices. `marks` names the values that
    a prompt may put in quotes.
    """

    name: str
    wordings: tuple[str, ...]
    held_out_wordings: tuple[str, ...]
    draw: Callable[[Random], Values]
    ask: Callable[[Random, Values], Turn]
    marks: tuple[str, ...] = ()

    def values(self, rng: Random, *, held_out: bool) -> Values:
        """Draw values from the training or the evaluation share."""
        while True:
            values = self.draw(rng)
            if self.is_held_out(values) == held_out:
                return values

    def is_held_out(self, values: Values) -> bool:
        """Say whether these values belong to evaluation."""
        key = "|".join([self.name, *(f"{name}={values[name]}" for name in sorted(values))])
        return zlib.crc32(key.encode()) % HELD_OUT_SHARE == 0

    def word(self, rng: Random, values: Values, *, held_out: bool) -> str:
        """State the rule in words."""
        template = rng.choice(self.held_out_wordings if held_out else self.wordings)
        quote = '"' if self.marks and rng.random() < 0.2 else ""
        shown = {
            name: f"{quote}{value}{quote}" if name in self.marks else value
            for name, value in values.items()
        }
        return expand(template, rng).format_map(shown)


def draw_phrase(rng: Random) -> Values:
    """Draw a freely chosen phrase of one or two words as the value `mark`."""
    return {"mark": " ".join(rng.sample(MARKS, rng.choice((1, 2))))}


def draw_phrase_with(name: str, choices: Sequence[str]) -> Callable[[Random], Values]:
    """Return a function that draws a phrase and one of `choices` as the value `name`."""

    def draw(rng: Random) -> Values:
        return {**draw_phrase(rng), name: rng.choice(choices)}

    return draw


def expand(template: str, rng: Random) -> str:
    """Replace every `<this|that>` by one of its choices."""
    return _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
