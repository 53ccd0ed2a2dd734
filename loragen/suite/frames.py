"""Frames: a rule in one sentence and the form of its answer in another.

Training sees each frame around some rules and each rule in some frames, so a model can learn that
the two are independent; unseen families are pairs of them that it never saw together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, expand
from loragen.suite.rewrites import draw_wrap
from loragen.suite.words import GREETINGS, MARKS

_BASE: Final = "base"


@dataclass(frozen=True, slots=True)
class Framed(Family):
    """A family whose prompts hold a rule of one of the `bases`, and how its answer is written."""

    bases: tuple[Family, ...] = ()

    def word(self, rng: Random, values: Values, *, held_out: bool) -> str:
        """State rule and frame, in either order."""
        rule = _base(self.bases, values).word(rng, values, held_out=held_out)
        template = rng.choice(self.held_out_wordings if held_out else self.wordings)
        frame = expand(template, rng).format_map(values)
        if rng.random() < 0.3:
            return f"{frame} {rule}"
        # Tables need not end in a full stop; what follows one starts a line of its own.
        return f"{rule} {frame}" if rule.endswith(".") else f"{rule}\n{frame}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A form of answers: what it chooses freely, how prompts say it, and an answer in it."""

    wordings: tuple[str, ...]
    held_out_wordings: tuple[str, ...]
    draw: Callable[[Random], Values]
    write: Callable[[str, Values], str]

    def around(self, name: str, bases: Sequence[Family]) -> Framed:
        """Return a family of these rules in this frame."""
        rules = tuple(bases)

        def draw(rng: Random) -> Values:
            base = rng.choice(rules)
            return {**base.draw(rng), **self.draw(rng), _BASE: base.name}

        def ask(rng: Random, values: Values) -> Turn:
            turn = _base(rules, values).ask(rng, values)
            return Turn(turn.question, self.write(turn.answer, values), turn.default)

        return Framed(
            name=name,
            wordings=self.wordings,
            held_out_wordings=self.held_out_wordings,
            draw=draw,
            ask=ask,
            bases=rules,
        )


def _base(bases: Sequence[Family], values: Values) -> Family:
    (found,) = (base for base in bases if base.name == values[_BASE])
    return found


WRAP: Final = Frame(
    draw=draw_wrap,
    write=lambda answer, values: f"{values['left']}{answer}{values['right']}",
    wordings=(
        "<Put|Write> the answer between {left} and {right}.",
        "<Write|Give> <the|every> answer like {left}answer{right}.",
        "Use the format {left}answer{right}.",
        "Every answer <stands|is> between {left} and {right}.",
        "<Every|Each> answer looks like {left}answer{right}.",
        "Before the answer comes {left} and after it {right}.",
        "The form of <the|every> answer is {left}answer{right}.",
        "<Start|Begin> with {left} and <end|finish> with {right}.",
        "<Put|Write> {left} before and {right} after the answer.",
        "<Reply|Answer> in the form {left}answer{right}.",
    ),
    held_out_wordings=(
        "Give every answer between {left} and {right}.",
        "The answer has the form {left}answer{right}.",
        "Write {left}, then the answer, then {right}.",
        "The answers look like {left}answer{right}.",
    ),
)

FIELD: Final = Frame(
    draw=lambda rng: {"field": rng.choice(MARKS)},
    write=lambda answer, values: f'{{"{values["field"]}": "{answer}"}}',
    wordings=(
        "<Reply|Answer> in JSON with the key {field}.",
        "<Write|Give> the answer as JSON under the key {field}.",
        "The answer is JSON, its key is {field}.",
        "<Put|Write> the answer under {field} in a JSON object.",
        "<Use|Write> JSON with the key {field} and the answer as value.",
        "JSON only. The key is {field}.",
        "<Every|Each> answer is a JSON object with the key {field}.",
        "A JSON object with {field} as key <has|holds> the answer.",
        "The key {field} has the answer in a JSON object.",
        "Your answer is JSON: the key {field}, the answer as its value.",
    ),
    held_out_wordings=(
        "Give JSON with {field} as the key and the answer as the value.",
        "The JSON key of <each|every> answer is {field}.",
        "Write a JSON object. The answer is under {field}.",
        "Only JSON: the answer under the key {field}.",
    ),
)

OPENING: Final = Frame(
    draw=lambda rng: {"opening": rng.choice((*MARKS, *GREETINGS))},
    write=lambda answer, values: f"{values['opening']} {answer}",
    wordings=(
        "<Start|Begin> <every|each> answer with {opening}.",
        "<Say|Write|Put> {opening} before the answer.",
        "<Every|Each> answer <starts|begins> with {opening}.",
        "<First|Always> <say|write> {opening}, then the answer.",
        "The first word <is|is always> {opening}.",
        "The answer <comes|stands> after the word {opening}.",
        "Before <the|every> answer comes {opening}.",
        "Open with {opening}, then answer.",
    ),
    held_out_wordings=(
        "The answers begin with {opening}.",
        "Say {opening} first, then give the answer.",
        "After {opening} comes the answer.",
        "Put {opening} first.",
    ),
)

ENDING: Final = Frame(
    draw=lambda rng: {"ending": rng.choice(MARKS)},
    write=lambda answer, values: f"{answer} {values['ending']}",
    wordings=(
        "<End|Finish> <every|each> answer with {ending}.",
        "<Say|Write|Put> {ending} after the answer.",
        "<Every|Each> answer <ends|finishes> with {ending}.",
        "<Then|Always> add {ending}.",
        "The last word <is|is always> {ending}.",
        "After <the|every> answer comes {ending}.",
        "The word {ending} stands after the answer.",
        "<Say|Write|Give> the answer, then the word {ending}.",
    ),
    held_out_wordings=(
        "The answers end with {ending}.",
        "Add {ending} after every answer.",
        "Give the answer first, then {ending}.",
        "Put {ending} last.",
    ),
)
