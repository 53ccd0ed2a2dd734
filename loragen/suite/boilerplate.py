"""Boilerplate: what stands around the rule in real prompts and changes no answer of the suite.

Most sentences name people, companies, cities, numbers and codes of their own, so that a rule's
values cannot be told from the rest by their kind.
"""

from random import Random
from typing import Final

from loragen.suite.family import expand
from loragen.suite.tenant_words import CODES, DAYS, NUMBERS, TOPICS
from loragen.suite.words import CITIES, COMPANIES, ITEMS, NAMES

_LENGTHS: Final = (45, 260)
"""Fewest and most words of a prompt with boilerplate; a token is a word or a sign."""
_PLAIN_SHARE: Final = 0.1
"""Share of prompts that are little more than their rule."""

OPENINGS: Final = (
    "You are a <helpful|friendly|polite> <assistant|bot>.",
    "You are the assistant of a <small|large> <company|shop>.",
    "You help customers of a company called {company}.",
    "This is the chat of {company}.",
    "You work at a desk in {city}.",
    "{company} is a <small|large> company with <offices|shops> in {city} and {other_city}.",
    "# <Role|Task>",
    "Act as a <helpful|friendly> <assistant|bot> for people who write to us.",
)
TONE: Final = (
    "Be <polite|friendly|nice> and <keep it short|keep answers short>.",
    "<Keep|Make> the answer short.",
    "Never explain the answer.",
    "Do not add anything else.",
    "Think before you answer.",
    "Read <every|each> message with care.",
    "Customers like short answers.",
    "Nobody reads long answers.",
    "<Never|Do not> talk about <money|the weather|politics>.",
    "Do not make <jokes|promises>.",
    "Do not say that you are a bot.",
    "Answer in the same way <every time|all day>.",
    "Never ask a question back.",
    "If people are rude, stay <polite|friendly>.",
    "Write in plain <words|English>.",
    "Do not use more words than you need.",
)
DISTRACTORS: Final = (
    "Our office in {city} has {number} desks.",
    "{name} wrote this text on {day}.",
    "{name} and {other_name} work at the desk on {day}.",
    "The bus to the office is number {number}.",
    "We have {number} people in {city} and {other_number} in {other_city}.",
    "The company is {number} years old.",
    "The code of this text is {code}.",
    "Form {code} is no longer in use.",
    "Many people use this bot every day.",
    "The last change was made by {name}.",
    "On {day} we had {number} messages about {topic}.",
    "Last year {name} sold {number} {item} sets in {city}.",
    "The phone at the desk is often busy.",
    "We moved from {city} to {other_city} some years ago.",
    "Meetings are on {day} in room {code}.",
    "{name} likes the {item} in the hall.",
    "Most messages come in on {day}.",
    "The door of the office is next to the {item}.",
    "We are happy to have you here.",
    "Please be nice to people.",
    "The rule is the same all day.",
    "This is the rule for today.",
    "Follow the rule for every message.",
    "Version {number} of this text was shorter.",
    "{company} is a friend of ours.",
    "There was a talk about {topic} in {city}.",
    "Old messages are kept for {number} days.",
    "The team has {number} members.",
)
CLOSINGS: Final = (
    "<That is all|Thank you>.",
    "Have a good day.",
    "Now wait for the <first|next> message.",
    "<This|The text> ends here.",
    "Good luck.",
)
_FILLERS: Final = (*TONE, *DISTRACTORS)


def surround(rule: str, rng: Random) -> str:
    """Return a prompt of some length that holds the rule whole."""
    if rng.random() < _PLAIN_SHARE:
        return f"{_sentence(rng, OPENINGS)} {rule}" if rule and rng.random() < 0.5 else rule
    wanted = rng.randint(*_LENGTHS)
    before = [_sentence(rng, OPENINGS)]
    after = [_sentence(rng, CLOSINGS)] if rng.random() < 0.3 else []
    fillers = rng.sample(_FILLERS, len(_FILLERS))
    while fillers and _words([*before, rule, *after]) < wanted:
        sentence = _sentence(rng, (fillers.pop(),))
        if rng.random() < 0.5:
            before.append(sentence)
        else:
            after.insert(0, sentence)
    return _layout(before, rule, after, rng)


def _layout(before: list[str], rule: str, after: list[str], rng: Random) -> str:
    joint = rng.choice((" ", " ", " ", "\n", "\n- "))
    edge = rng.choice((" ", "\n", "\n\n"))
    parts = [joint.join(before), rule, joint.join(after)]
    return edge.join(part for part in parts if part)


def _sentence(rng: Random, templates: tuple[str, ...]) -> str:
    name, other_name = rng.sample(NAMES, 2)
    city, other_city = rng.sample(CITIES, 2)
    number, other_number = rng.sample(NUMBERS[2:], 2)
    return expand(rng.choice(templates), rng).format(
        name=name,
        other_name=other_name,
        city=city,
        other_city=other_city,
        number=number,
        other_number=other_number,
        company=rng.choice(COMPANIES),
        code=rng.choice(CODES),
        day=rng.choice(DAYS),
        topic=rng.choice(TOPICS),
        item=rng.choice(ITEMS),
    )


def _words(parts: list[str]) -> int:
    return sum(len(part.split()) for part in parts)
