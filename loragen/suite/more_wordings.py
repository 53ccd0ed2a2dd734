"""Wordings that the tenants catalogue adds to families of the small one, by family."""

from collections.abc import Mapping
from typing import Final

from loragen.suite.labels import about

_LABELS: Final = ("sentiment", "detect", "urgency", "topic")
_LABEL_HELD_OUT: Final = (
    "<Sort|Label> the THING, CLASSES, and <say|put> {mark} before the label.",
    "<Read|Sort> the THING. After {mark} comes CLASSES.",
    "First {mark}, then the label of the THING: CLASSES.",
    "<Write|Say> whether the THING is CLASSES, but {mark} first.",
)

TRAINING: Final[Mapping[str, tuple[str, ...]]] = {
    "persona": (
        "<Play|Act as> {name} of {company}. The <office|desk> is in {city}. <Open|Start> with "
        "{greeting}.",
        "- name: {name}\n- company: {company}\n- city: {city}\n- greeting: {greeting}",
        "{greeting} is what you say first. {name} is your name, {company} your company and {city} "
        "your city.",
    ),
    "signoff": (
        "<Write|Put> {name}, {company} <under|after> <each|every> answer.",
        "You sign as {name} from {company}, <after|at the end of> <each|every> answer.",
    ),
    "json": (
        "<Put|Write> the item of <each|every> message under {mark} <as|in> JSON.",
        "<Answer|Reply> with JSON <only|and no other text>: {mark} is the key of the item.",
    ),
    "format": (
        "Answer in this form: {left}item{right} {mark}.",
        "<Wrap|Put> the item in {left} and {right} and <add|write> {mark}.",
        "Form: {left}item{right} {mark}.",
    ),
}

HELD_OUT: Final[Mapping[str, tuple[str, ...]]] = {
    "persona": (
        "Act as {name}. <The company is|Your company is> {company}, in {city}. <Say|Use> "
        "{greeting} <to greet|as greeting>.",
        "The <assistant|bot> of {company} is called {name}. It is in {city} and says {greeting}.",
        "<Open|Begin> with {greeting}. Name: {name}. City: {city}. Company: {company}.",
    ),
    "signoff": (
        "<Add|Put> the signature {name}, {company} <after|at the end of> each answer.",
        "<Confirm|Answer> it, then sign with {name}, {company}.",
        "Your answers end with the words {name}, {company}.",
    ),
    "format": (
        "<Write|Say> {mark} after the item in {left} and {right}.",
        "<Wrap|Put> the item like {left}item{right}. <Then say|End with> {mark}.",
        "Every item looks like {left}item{right}, <then comes|and after it> {mark}.",
    ),
    "pick": (
        "<Say|Write> only the {ordinal} word and <end|finish> with {mark}.",
        "Your answer: the {ordinal} word, then {mark}.",
        "<Find|Take> the {ordinal} word of each message. <Add|Write> {mark}.",
    ),
    "start": (
        "<Copy|Repeat> the text after {mark}.",
        "Each answer <starts|begins> with {mark} and then has the message.",
        "<Write|Put> {mark} first, then the message of the user.",
    ),
    "end": (
        "<Copy|Repeat> the text before {mark}.",
        "Each answer has the message and then <ends|finishes> with {mark}.",
        "<Write|Put> the message first, and {mark} after it.",
    ),
    "json": (
        "<Use|Write> JSON with the item under {mark}.",
        "Key {mark}, value the item: <answer|reply> in JSON.",
        "<Find|Take> the item of the message. <Give|Write> JSON with the key {mark}.",
    ),
    **{family: about(family, _LABEL_HELD_OUT) for family in _LABELS},
}
