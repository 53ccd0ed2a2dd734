"""Unseen families: two trained rules in one prompt. They occur in evaluation only."""

from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values
from loragen.suite.labels import SENTIMENT
from loragen.suite.rewrites import ASK_BACK, draw_wrap, pick, words_of
from loragen.suite.words import MARKS, ORDINALS


def _draw_wrapped_pick(rng: Random) -> Values:
    return {**draw_wrap(rng), "ordinal": rng.choice(ORDINALS)}


def _ask_wrapped_pick(rng: Random, values: Values) -> Turn:
    words = words_of(rng)
    answer = f"{values['left']}{pick(words, values['ordinal'])}{values['right']}"
    return Turn(" ".join(words), answer, ASK_BACK)


def _draw_json_pick(rng: Random) -> Values:
    return {"mark": rng.choice(MARKS), "ordinal": rng.choice(ORDINALS)}


def _ask_json_pick(rng: Random, values: Values) -> Turn:
    words = words_of(rng)
    answer = f'{{"{values["mark"]}": "{pick(words, values["ordinal"])}"}}'
    return Turn(" ".join(words), answer, ASK_BACK)


def _draw_wrapped_label(rng: Random) -> Values:
    return {**draw_wrap(rng), **SENTIMENT.draw(rng)}


def _ask_wrapped_label(rng: Random, values: Values) -> Turn:
    turn = SENTIMENT.ask(rng, values)
    return Turn(turn.question, f"{values['left']}{turn.answer}{values['right']}", turn.default)


WRAPPED_PICK: Final = Family(
    name="wrapped_pick",
    draw=_draw_wrapped_pick,
    ask=_ask_wrapped_pick,
    wordings=(
        "Take the {ordinal} word of the message. Use the format {left}word{right}.",
        "Answer with the {ordinal} word between {left} and {right}.",
    ),
    held_out_wordings=(),
)

JSON_PICK: Final = Family(
    name="json_pick",
    draw=_draw_json_pick,
    ask=_ask_json_pick,
    marks=("mark",),
    wordings=(
        "Answer in JSON with the key {mark} and the {ordinal} word of the message as value.",
        "Put the {ordinal} word of the message under the key {mark} in a JSON object.",
    ),
    held_out_wordings=(),
)

WRAPPED_LABEL: Final = Family(
    name="wrapped_label",
    draw=_draw_wrapped_label,
    ask=_ask_wrapped_label,
    wordings=(
        "Use the format {left}answer{right}. The answer is {mark}, then positive or negative.",
        "Answer with {mark} and then positive or negative, between {left} and {right}.",
    ),
    held_out_wordings=(),
)
