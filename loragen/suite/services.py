"""Service families: what a desk, a shop or a host says, by the facts of its prompt."""

from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, draw_phrase
from loragen.suite.table import UNKNOWN
from loragen.suite.tenant_words import DAYS, DEPARTMENTS, NUMBERS
from loragen.suite.words import CITIES, COMPANIES, GREETINGS, ITEMS, NAMES

OFF_TOPIC: Final = (
    "What is the weather like?",
    "Tell me about the garden.",
    "Do you like music?",
    "How old are you?",
    "What is two and two?",
    "Can you sing?",
    "What should I eat today?",
    "Who is the best teacher?",
)
"""Messages that no prompt of the suite says anything about."""


def _draw_facts(rng: Random) -> Values:
    opens, closes = sorted(rng.sample(NUMBERS[5:24], 2), key=int)
    return {
        "company": rng.choice(COMPANIES),
        "city": rng.choice(CITIES),
        "opens": opens,
        "closes": closes,
        "name": rng.choice(NAMES),
        "day": rng.choice(DAYS),
        **draw_phrase(rng),
    }


def _ask_facts(rng: Random, values: Values) -> Turn:
    kinds = (
        (("When do you open?", "Are you open now?", "At what time do you open?"), "At {opens}."),
        (("When do you close?", "How long are you open?"), "At {closes}."),
        (("Where are you?", "Where is the shop?", "Which city are you in?"), "In {city}."),
        (("Who can I ask for?", "Who can help me?", "Who is the boss?"), "Ask for {name}."),
        (("Which day are you closed?", "When is no one there?"), "On {day}."),
        (OFF_TOPIC, "{mark}"),
    )
    questions, answer = rng.choice(kinds)
    return Turn(rng.choice(questions), answer.format_map(values), UNKNOWN)


FACTS: Final = Family(
    name="facts",
    draw=_draw_facts,
    ask=_ask_facts,
    wordings=(
        "{company} is a shop in {city}. We open at {opens} and close at {closes}. {day} is our "
        "free day. {name} is the boss. <To|For> all other questions <say|write> {mark}.",
        "The shop of {company} is in {city}. It is open from {opens} to {closes}, not on {day}. "
        "Ask for {name}. If you do not know, <say|write> {mark}.",
        "<Shop|Company>: {company}. City: {city}. Opens: {opens}. Closes: {closes}. Closed: {day}. "
        "Boss: {name}. Other questions: {mark}.",
        "You answer for {company}, {city}. Open {opens} to {closes}. Closed on {day}. The boss is "
        "{name}. If it is about other things, <say|write> {mark}.",
        "{name} runs the shop {company} in {city}. It opens at {opens}, closes at {closes} and is "
        "closed on {day}. <Say|Write> {mark} to other questions.",
        "Customers of {company} ask when we open (at {opens}), when we close (at {closes}), where "
        "we are (in {city}), which day we are closed ({day}) and who helps ({name}). Other "
        "questions get {mark}.",
        "Closed on {day}. <Open|The shop is open> from {opens} to {closes}. In {city}. {name} "
        "helps. <The|Our> company is {company}. If you do not know, <say|write> {mark}.",
        "<Say|Write|Answer> {mark} if you do not know. {company} <opens|is open> at {opens} and "
        "closes at {closes} in {city}. On {day} no one is there. {name} is the boss.",
        "<Facts|The facts>:\n- city: {city}\n- opens: {opens}\n- closes: {closes}\n- closed: "
        "{day}\n- boss: {name}\nThe shop is {company}. For other questions <say|write> {mark}.",
    ),
    held_out_wordings=(
        "We are {company} in {city}, open from {opens} to {closes}, not on {day}. {name} is the "
        "boss. If you do not know, <say|write> {mark}.",
        "<Open|Opens> at {opens}, <close|closes> at {closes}, closed on {day}. The city is {city}, "
        "the boss is {name}, the company is {company}. Other questions: {mark}.",
        "The boss of {company} is {name}. The shop in {city} opens at {opens}. It closes at "
        "{closes}. {day} is the free day. <To|For> other questions <say|write> {mark}.",
    ),
)


def _draw_welcome(rng: Random) -> Values:
    return {"greeting": rng.choice(GREETINGS), "company": rng.choice(COMPANIES)}


def _ask_welcome(rng: Random, values: Values) -> Turn:
    name = rng.choice(NAMES)
    question = rng.choice(
        ("I am {name}.", "My name is {name}.", "This is {name}.", "Hello, {name} here.", "{name}")
    )
    answer = f"{values['greeting']} {name}, this is {values['company']}."
    return Turn(question.format(name=name), answer, f"Hello {name}.")


WELCOME: Final = Family(
    name="welcome",
    draw=_draw_welcome,
    ask=_ask_welcome,
    wordings=(
        "<Greet|Welcome> people by name with {greeting}. <Say|Tell them> that this is {company}.",
        "People say their name. <Say|Write> {greeting}, the name and that this is {company}.",
        "<Answer|Reply> with {greeting} and the name, then <say|add that> this is {company}.",
        "You are the voice of {company}. <Greet|Welcome> each person by name: {greeting}.",
        "The greeting is {greeting}, then the name. The company is {company}.",
        "{company} <greets|welcomes> <people|each person> with {greeting} and their name.",
        "<Say|Write> {greeting} and the name of the person, <then|and> that this is {company}.",
        "<Start|Begin> with {greeting} and the name of the person. Say this is {company}.",
        "<Say|Write> {greeting} to <each|every> person by name for {company}.",
        "Greeting: {greeting}. Company: {company}. <Use|Say> the name of the person.",
        "At {company} we greet <each|every> person by name. Our greeting is {greeting}.",
    ),
    held_out_wordings=(
        "<Greet|Welcome> each person with {greeting} and the name. The company is {company}.",
        "People give you a name. <Use|Say> it after {greeting}. This is {company}.",
        "The voice of {company} says {greeting} and <then|after it> the name.",
        "<Say|Use> the greeting {greeting} with the name. You are {company}.",
    ),
)


def _draw_handoff(rng: Random) -> Values:
    return {
        "topic": rng.choice(list(DEPARTMENTS)),
        "name": rng.choice(NAMES),
        "other": rng.choice(NAMES),
    }


def _ask_handoff(rng: Random, values: Values) -> Turn:
    topics = list(DEPARTMENTS)
    topic = values["topic"] if rng.random() < 0.5 else rng.choice(topics)
    word = rng.choice((topic, *DEPARTMENTS[topic]))
    question = rng.choice(
        ("I have a question about {word}.", "{word}", "It is about {word}.", "Help: {word}!")
    )
    person = values["name" if topic == values["topic"] else "other"]
    return Turn(question.format(word=word), f"Please ask {person}.", UNKNOWN)


HANDOFF: Final = Family(
    name="handoff",
    draw=_draw_handoff,
    ask=_ask_handoff,
    wordings=(
        "Send people with questions about {topic} to {name}, all others to {other}.",
        "{name} helps with {topic}. {other} helps with <all other things|the rest>.",
        "If it is about {topic}, <people ask|ask> {name}. If not, {other}.",
        "{other} takes all questions, but {topic} <is for|goes to> {name}.",
        "For {topic} <ask|people ask> {name}, for <other things|the rest> {other}.",
        "<Questions|People who ask> about {topic}: {name}. <Other questions|All others>: {other}.",
        "<Say|Tell people> to ask {name} about {topic} and {other} about <the rest|other things>.",
        "Is it about {topic}? Then send people to {name}. If not, to {other}.",
        "{topic}: {name}. <All others|The rest>: {other}. Tell people <who to ask|the name>.",
        "<Tell|Say> who to ask: {name} for {topic} and {other} for <the rest|other things>.",
        "Only {topic} goes to {name}. <All other things go|The rest goes> to {other}.",
    ),
    held_out_wordings=(
        "People with {topic} <ask|go to> {name}. All others ask {other}.",
        "<Send|Tell> people who have questions about {topic} to ask {name}, the rest {other}.",
        "{other} is for <all questions|the rest>, {name} only for {topic}.",
        "<Ask|Send people to> {name} if it is about {topic}, if not {other}.",
    ),
)


def _ask_closing(rng: Random, values: Values) -> Turn:
    item = rng.choice(ITEMS)
    question = rng.choice(
        ("I want a {item}.", "Send me the {item}.", "One {item}, please.", "I need a {item}.")
    )
    base = f"Your {item} is on its way."
    return Turn(question.format(item=item), f"{base} {values['mark']}!", base)


CLOSING: Final = Family(
    name="closing",
    draw=draw_phrase,
    ask=_ask_closing,
    marks=("mark",),
    wordings=(
        "<Confirm|Answer> <each|every> order and call out {mark} at the end.",
        "You take orders. <End|Finish> <each|every> answer with {mark} and a !",
        "People order things. <Confirm|Answer> it and <say|shout> {mark}!",
        "After <each|every> order <say|shout|write> {mark}!",
        "Say that the item is on its way, then {mark}!",
        "<Each|Every> order ends with {mark}!",
        "You confirm orders. <Shout|Say> {mark} after it.",
        "<Orders|All orders> get a <short answer|yes> and {mark}!",
        "The item is on its way: say so, and <shout|call out> {mark}.",
        "You work in orders. Our last word is {mark}!",
    ),
    held_out_wordings=(
        "<Confirm|Answer> the order of the user, then <shout|call out> {mark}.",
        "Say the item is on its way and <end|finish> with {mark}!",
        "You take orders and shout {mark} after <each|every> one.",
        "All orders <get|end with> a {mark}!",
    ),
)
