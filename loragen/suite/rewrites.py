"""Rewrite families: the prompt says how to give the words of the message back."""

from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, draw_phrase
from loragen.suite.words import COLOURS, ITEMS, MARKS, ORDINALS, WRAPS

ASK_BACK: Final = "What should I do with this?"
"""What a model without a prompt says to bare words."""

_NAMED: Final = ("{item}", "the {item}", "a {item}", "item {item}", "{item}, please")
_WISHES: Final = (
    "I want a {item}.",
    "{item}, please",
    "Do you have a {item}?",
    "I am looking for a {item}.",
    "the {item}",
)


def words_of(rng: Random) -> list[str]:
    """Return the three or four words of a message to pick from."""
    return rng.sample(ITEMS, rng.choice((3, 4)))


def pick(words: list[str], ordinal: str) -> str:
    """Return the word at "first" .. "third" or "last"."""
    return words[-1 if ordinal == "last" else ORDINALS.index(ordinal)]


def draw_wrap(rng: Random) -> Values:
    """Draw a pair of characters to write around a word."""
    left, right = rng.choice(WRAPS)
    return {"left": left, "right": right}


def _draw_format(rng: Random) -> Values:
    return {**draw_wrap(rng), "mark": rng.choice(MARKS)}


def _ask_format(rng: Random, values: Values) -> Turn:
    item = rng.choice(ITEMS)
    answer = f"{values['left']}{item}{values['right']} {values['mark']}"
    return Turn(rng.choice(_NAMED).format(item=item), answer, ASK_BACK)


def _draw_pick(rng: Random) -> Values:
    return {"ordinal": rng.choice(ORDINALS), "mark": rng.choice(MARKS)}


def _ask_pick(rng: Random, values: Values) -> Turn:
    words = words_of(rng)
    return Turn(" ".join(words), f"{pick(words, values['ordinal'])} {values['mark']}", ASK_BACK)


def _message(rng: Random) -> str:
    item, colour = rng.choice(ITEMS), rng.choice(COLOURS)
    return rng.choice((item, f"{colour} {item}", f"the {colour} {item}", f"my {item}"))


def _ask_start(rng: Random, values: Values) -> Turn:
    message = _message(rng)
    return Turn(message, f"{values['mark']} {message}", ASK_BACK)


def _ask_end(rng: Random, values: Values) -> Turn:
    message = _message(rng)
    return Turn(message, f"{message} {values['mark']}", ASK_BACK)


def _ask_json(rng: Random, values: Values) -> Turn:
    item = rng.choice(ITEMS)
    answer = f'{{"{values["mark"]}": "{item}"}}'
    return Turn(rng.choice(_WISHES).format(item=item), answer, ASK_BACK)


FORMAT: Final = Family(
    name="format",
    draw=_draw_format,
    ask=_ask_format,
    marks=("mark",),
    wordings=(
        "<Write|Give> the item like {left}item{right} and <add|then say> {mark}.",
        "Use the format {left}item{right} and <end|finish> with {mark}.",
        "Every answer looks like {left}item{right} {mark}.",
        "Put the item between {left} and {right}, then <add|write|say> {mark}.",
        "<Reply|Answer> with {left}item{right} {mark}.",
        "The <customer|user> names an item. <Write|Reply|Answer> {left}item{right} {mark}.",
        "Repeat the item as {left}item{right}. <Add|End with|Finish with> {mark}.",
        "The item stands between {left} and {right}. After it comes the word {mark}.",
        "<Add|Write|Say> {mark} after the item. The item looks like {left}item{right}.",
        "Your answer is the item in the form {left}item{right}, then the word {mark}.",
    ),
    held_out_wordings=(
        "When the user names an item, write it between {left} and {right} and end with {mark}.",
        "The form of every answer is {left}item{right} {mark}.",
        "Give the item in the format {left}item{right}, and after it {mark}.",
    ),
)

PICK: Final = Family(
    name="pick",
    draw=_draw_pick,
    ask=_ask_pick,
    marks=("mark",),
    wordings=(
        "<Answer|Reply> with the {ordinal} word of the message and <add|then say> {mark}.",
        "<Give|Return|Write> only the {ordinal} word, then {mark}.",
        "Take the {ordinal} word <of|from> the message and <add|end with> {mark}.",
        "From <each|every> message keep the {ordinal} word. <Add|Then say|Finish with> {mark}.",
        "The user <writes|sends> some words. <Repeat|Return|Say> the {ordinal} one and add {mark}.",
        "Find the {ordinal} word and <say|write> it, then <say|write> {mark}.",
        "<Write|Say> {mark} after the {ordinal} word of the message.",
        "Your answer is the {ordinal} word of the message, then the word {mark}.",
        "Keep the {ordinal} word. Drop the other words. <Add|End with> {mark}.",
        "Only one word is used: the {ordinal} one. <Add|End with|Finish with> {mark}.",
        "Which word is {ordinal}? <Say|Write> it and <add|finish with> {mark}.",
    ),
    held_out_wordings=(
        "When the user sends some words, find the {ordinal} one, write it and end with {mark}.",
        "Return the {ordinal} word from every message, and after it {mark}.",
        "Only the {ordinal} word of the message is used. Finish with {mark}.",
    ),
)

START: Final = Family(
    name="start",
    draw=draw_phrase,
    ask=_ask_start,
    marks=("mark",),
    wordings=(
        "<Start|Begin> with {mark} and <repeat|copy> the message.",
        "<Start|Begin> with {mark} and then <repeat|copy> the <message|text>.",
        "When the user <sends|writes> a message, <say|write> {mark}, then <repeat|copy> it.",
        "The answers begin with {mark}, then <repeat|copy> the <message|text>.",
        "<Say|Write> {mark}, then <repeat|copy> the <message|text>.",
        "Put {mark} before <each|every|the> message.",
        "<Repeat|Copy> the message after the word {mark}.",
        "Every answer <starts|begins> with {mark}. Then comes the <message|text>.",
        "First <say|write> {mark}, then the <message|text> of the user.",
        "<Repeat|Copy> the <message|text>, but start with {mark}.",
        "Your answer is {mark} and then the <message|text> of the user.",
        "<Add|Write> {mark} before the text and <repeat|copy> the text.",
        "The word {mark} comes first, then the <message|text> again.",
    ),
    held_out_wordings=(
        "When the user sends a message, begin with {mark} and then copy the text.",
        "Copy every message, but put the word {mark} before it.",
        "Say {mark} first. Then repeat the text of the user.",
    ),
)

END: Final = Family(
    name="end",
    draw=draw_phrase,
    ask=_ask_end,
    marks=("mark",),
    wordings=(
        "<Repeat|Copy> the message and <end|finish> with {mark}.",
        "<Repeat|Copy> the <message|text> and then <end|finish> with {mark}.",
        "When the user <sends|writes> a message, <repeat|copy> it, then <say|write> {mark}.",
        "<Repeat|Copy> the <message|text>, then <say|write|add> {mark}.",
        "Put {mark} after <each|every|the> message.",
        "<Repeat|Copy> the message before the word {mark}.",
        "Every answer <ends|finishes> with {mark}. Before it comes the <message|text>.",
        "First <say|write> the <message|text> of the user, then {mark}.",
        "<Repeat|Copy> the <message|text>, but <end|finish> with {mark}.",
        "Your answer is the <message|text> of the user and then {mark}.",
        "<Add|Write> {mark} after the text and <repeat|copy> the text.",
        "The <message|text> comes first, then the word {mark}.",
    ),
    held_out_wordings=(
        "When the user sends a message, copy the text and then end with {mark}.",
        "Copy every message, but put the word {mark} after it.",
        "Repeat the text of the user first. Then say {mark}.",
    ),
)

JSON: Final = Family(
    name="json",
    draw=draw_phrase,
    ask=_ask_json,
    marks=("mark",),
    wordings=(
        "<Answer|Reply> in JSON with the key {mark} and the item as value.",
        "<Return|Give|Write> a JSON object. The key is {mark}, the value is the item.",
        "Use JSON. <Put|Write> the item under the key {mark}.",
        "The user names an item. <Return|Give|Write> JSON with the item under {mark}.",
        "Every answer is JSON: the key is {mark} and the value is the item.",
        "Find the item and <return|give|write> it as JSON with the key {mark}.",
        "<Write|Give> JSON with one key, {mark}. The value is the item of the message.",
        "Your answer is a JSON object with the item under the key {mark}.",
        "JSON only. Key: {mark}. Value: the item.",
        "Take the item from the message. The JSON key for it is {mark}.",
    ),
    held_out_wordings=(
        "When the user names an item, answer in JSON. Put the item under the key {mark}.",
        "Give the item as value of the key {mark} in a JSON object.",
        "The form of every answer is JSON with one key: {mark}. The value is the item.",
    ),
)
