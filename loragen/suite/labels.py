"""Label families: the prompt names a property of messages and one freely chosen word per case."""

from collections.abc import Callable
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values
from loragen.suite.words import CATEGORIES, COLOURS, ITEMS, MARKS, NEGATIVE, POSITIVE

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


def _draw_two(rng: Random) -> Values:
    a, b = rng.sample(MARKS, 2)
    return {"a": a, "b": b}


def _fill(rng: Random, templates: tuple[str, ...], **fixed: str) -> str:
    values = {"item": rng.choice(ITEMS), "colour": rng.choice(COLOURS), **fixed}
    return rng.choice(templates).format_map(values)


def _two_cases(
    case: Callable[[Random, bool], tuple[str, str]],
) -> Callable[[Random, Values], Turn]:
    """Ask about case a or b; `case(rng, is_a)` gives the question and the default answer."""

    def ask(rng: Random, values: Values) -> Turn:
        is_a = rng.random() < 0.5
        question, default = case(rng, is_a)
        return Turn(question, values["a" if is_a else "b"], default)

    return ask


def _review(rng: Random, is_a: bool) -> tuple[str, str]:
    word = rng.choice(POSITIVE if is_a else NEGATIVE)
    return _fill(rng, _REVIEWS, word=word), "Thank you for the review."


def _question(rng: Random, is_a: bool) -> tuple[str, str]:
    if is_a:
        return _fill(rng, _QUESTIONS), "I do not know."
    return _fill(rng, _STATEMENTS), "I see."


def _urgency(rng: Random, is_a: bool) -> tuple[str, str]:
    return _fill(rng, _URGENT if is_a else _CALM), "I will look into it."


def _draw_topic(rng: Random) -> Values:
    topic = rng.choice(list(CATEGORIES))
    return {**_draw_two(rng), "topic": topic, "one": CATEGORIES[topic][0]}


def _ask_topic(rng: Random, values: Values) -> Turn:
    is_a = rng.random() < 0.5
    inside = CATEGORIES[values["topic"]][1]
    item = rng.choice(inside if is_a else [item for item in ITEMS if item not in inside])
    question = _fill(rng, _MENTIONS, item=item)
    return Turn(question, values["a" if is_a else "b"], "Thank you for the message.")


SENTIMENT: Final = Family(
    name="sentiment",
    draw=_draw_two,
    ask=_two_cases(_review),
    marks=("a", "b"),
    wordings=(
        "<If|When> the review is <good|positive>, <answer|say|reply> {a}; <if|when> it is "
        "<bad|negative>, <answer|say|reply> {b}.",
        "Label <each|every> review: {a} for <good|positive> ones, {b} for <bad|negative> ones.",
        "You <rate|judge|label> reviews. <Good|Positive> means {a}. <Bad|Negative> means {b}.",
        "<Reply|Answer> with {a} <if|when> the customer is happy and with {b} <if|when> the "
        "customer is unhappy.",
        "Customers <write|send> reviews. <Say|Write|Use> {a} <for|after> a <good|positive> review "
        "and {b} <for|after> a <bad|negative> review.",
        "Read the review. Is it <good|positive>? Then <say|answer> {a}. Is it <bad|negative>? Then "
        "<say|answer> {b}.",
        "The <label|word> for a <bad|negative> review is {b}. The <label|word> for a "
        "<good|positive> review is {a}.",
        "For <bad|negative> reviews <use|write|say> {b}, for <good|positive> reviews "
        "<use|write|say> {a}.",
        "<Label|Mark> happy customers as {a} and unhappy customers as {b}.",
        "<Say|Write> {a} if the <review|message> is <good|positive>, otherwise <say|write> {b}.",
        "<Good|Positive> review: {a}. <Bad|Negative> review: {b}.",
        "Is the review <good|positive>? <Say|Write> {a}. <Otherwise|If not,> <say|write> {b}.",
        "Two words are used: {a} and {b}. {a} is for reviews that are <good|positive>, {b} is for "
        "reviews that are <bad|negative>.",
        "The labels are {a} (<good|positive> review) and {b} (<bad|negative> review).",
    ),
    held_out_wordings=(
        "Two labels are used here: {a} means that the review is <good|positive>, {b} means that "
        "it is <bad|negative>.",
        "Your answer to a <bad|negative> review is {b}. Your answer to a <good|positive> review "
        "is {a}.",
        "When a customer is happy, write {a}. When a customer is unhappy, write {b}.",
    ),
)

DETECT: Final = Family(
    name="detect",
    draw=_draw_two,
    ask=_two_cases(_question),
    marks=("a", "b"),
    wordings=(
        "<If|When> the message is a question, <answer|say|reply> {a}; <if|when> it is a statement, "
        "<answer|say|reply> {b}.",
        "Label <each|every> message: {a} for questions, {b} for statements.",
        "You sort messages. <Question|A question> means {a}. <Statement|A statement> means {b}.",
        "<Reply|Answer> with {a} <if|when> the customer asks something and with {b} <if|when> the "
        "customer tells something.",
        "<Say|Write|Use> {a} <for|after> a question and {b} <for|after> a statement.",
        "Read the message. Is it a question? Then <say|answer> {a}. Is it a statement? Then "
        "<say|answer> {b}.",
        "The <label|word> for a statement is {b}. The <label|word> for a question is {a}.",
        "For statements <use|write|say> {b}, for questions <use|write|say> {a}.",
        "<Label|Mark> questions as {a} and statements as {b}.",
        "<Say|Write> {a} if the message is a question, otherwise <say|write> {b}.",
        "Question: {a}. Statement: {b}.",
        "Is the message a question? <Say|Write> {a}. <Otherwise|If not,> <say|write> {b}.",
        "Two words are used: {a} and {b}. {a} is for messages that ask something, {b} is for "
        "messages that tell something.",
        "The labels are {a} (question) and {b} (statement).",
    ),
    held_out_wordings=(
        "Two labels are used here: {a} means that the message is a question, {b} means that it is "
        "a statement.",
        "Your answer to a statement is {b}. Your answer to a question is {a}.",
        "When a customer asks something, write {a}. When a customer tells something, write {b}.",
    ),
)

URGENCY: Final = Family(
    name="urgency",
    draw=_draw_two,
    ask=_two_cases(_urgency),
    marks=("a", "b"),
    wordings=(
        "<If|When> the message is urgent, <answer|say|reply> {a}; <if|when> it can wait, "
        "<answer|say|reply> {b}.",
        "Label <each|every> message: {a} for urgent ones, {b} for <normal|other> ones.",
        "You sort messages. Urgent means {a}. <Normal|Not urgent> means {b}.",
        "<Reply|Answer> with {a} <if|when> the customer is in a hurry and with {b} <if|when> the "
        "customer can wait.",
        "<Say|Write|Use> {a} <for|after> an urgent message and {b} <for|after> a normal message.",
        "Read the message. Is it urgent? Then <say|answer> {a}. Can it wait? Then <say|answer> "
        "{b}.",
        "The <label|word> for a normal message is {b}. The <label|word> for an urgent message is "
        "{a}.",
        "For normal messages <use|write|say> {b}, for urgent messages <use|write|say> {a}.",
        "<Label|Mark> urgent messages as {a} and normal messages as {b}.",
        "<Say|Write> {a} if the message is urgent, otherwise <say|write> {b}.",
        "Urgent message: {a}. Normal message: {b}.",
        "Is the message urgent? <Say|Write> {a}. <Otherwise|If not,> <say|write> {b}.",
        "Two words are used: {a} and {b}. {a} is for messages that are urgent, {b} is for "
        "messages that can wait.",
        "The labels are {a} (urgent) and {b} (normal).",
    ),
    held_out_wordings=(
        "Two labels are used here: {a} means that the message is urgent, {b} means that it can "
        "wait.",
        "Your answer to a normal message is {b}. Your answer to an urgent message is {a}.",
        "When a customer is in a hurry, write {a}. When a customer can wait, write {b}.",
    ),
)

TOPIC: Final = Family(
    name="topic",
    draw=_draw_topic,
    ask=_ask_topic,
    marks=("a", "b"),
    wordings=(
        "<If|When> the message is about {topic}, <answer|say|reply> {a}; <if|when> it is about "
        "something else, <answer|say|reply> {b}.",
        "Label <each|every> message: {a} for {topic}, {b} for <other things|everything else>.",
        "You sort messages. {a} means {topic}. {b} means <other things|everything else>.",
        "<Reply|Answer> with {a} <if|when> the customer <names|mentions> {one} and with {b} "
        "otherwise.",
        "<Say|Write|Use> {a} <for|after> a message about {topic} and {b} <for|after> all other "
        "messages.",
        "Read the message. Is it about {topic}? Then <say|answer> {a}. Is it about something else? "
        "Then <say|answer> {b}.",
        "The <label|word> for messages about {topic} is {a}. The <label|word> for other messages "
        "is {b}.",
        "For {topic} <use|write|say> {a}, for <other things|everything else> <use|write|say> {b}.",
        "<Label|Mark> {topic} as {a} and everything else as {b}.",
        "<Say|Write> {a} if the message <names|mentions> {one}, otherwise <say|write> {b}.",
        "Messages about {topic}: {a}. Other messages: {b}.",
        "Is the message about {topic}? <Say|Write> {a}. <Otherwise|If not,> <say|write> {b}.",
        "Two words are used: {a} and {b}. {a} is for messages that <name|mention> {one}, {b} is "
        "for all other messages.",
        "The labels are {a} ({topic}) and {b} (everything else).",
    ),
    held_out_wordings=(
        "Two labels are used here: {a} means that the message is about {topic}, {b} means that it "
        "is about something else.",
        "Your answer to a message about {topic} is {a}. Your answer to all other messages is {b}.",
        "When a customer mentions {one}, write {a}. Otherwise write {b}.",
    ),
)
