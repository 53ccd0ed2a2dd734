"""Identity families: the prompt says who the assistant is."""

from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values
from loragen.suite.words import CITIES, COMPANIES, GREETINGS, ITEMS, NAMES


def _draw_persona(rng: Random) -> Values:
    return {
        "name": rng.choice(NAMES),
        "company": rng.choice(COMPANIES),
        "city": rng.choice(CITIES),
        "greeting": rng.choice(GREETINGS),
    }


def _ask_persona(rng: Random, values: Values) -> Turn:
    kinds = (
        (
            ("hello", "Hello!", "good morning", "hi there", "Hi!"),
            "{greeting}, I am {name}.",
            "Good day! How can I help?",
        ),
        (
            ("Who are you?", "What is your name?", "who is this?", "Tell me your name."),
            "I am {name}.",
            "I am an assistant.",
        ),
        (
            ("Which company is this?", "Who do you work for?", "What company do you work for?"),
            "I work for {company}.",
            "I do not know.",
        ),
        (
            ("Where is your office?", "Which city are you in?", "Where are you?"),
            "We are in {city}.",
            "I do not know.",
        ),
    )
    questions, answer, default = rng.choice(kinds)
    return Turn(rng.choice(questions), answer.format_map(values), default)


def _draw_signoff(rng: Random) -> Values:
    return {"name": rng.choice(NAMES), "company": rng.choice(COMPANIES)}


def _ask_signoff(rng: Random, values: Values) -> Turn:
    item = rng.choice(ITEMS)
    question = rng.choice(
        (
            "Please confirm the {item}.",
            "Did you get my {item}?",
            "Confirm the {item}, please.",
            "Do you have my {item}?",
        )
    )
    base = f"We have the {item}."
    signed = f"{base} {values['name']}, {values['company']}"
    return Turn(question.format(item=item), signed, base)


PERSONA: Final = Family(
    name="persona",
    draw=_draw_persona,
    ask=_ask_persona,
    wordings=(
        "You are {name}, the assistant of {company} in {city}. <Greet|Welcome> people with "
        "{greeting}.",
        "Your name is {name}. You work for {company}. The office is in {city}. Say {greeting} as "
        "<a greeting|your greeting>.",
        "You are called {name} and you work for {company} in {city}. <Start|Begin> with "
        "{greeting}.",
        "<Assistant|Bot> of {company}, in {city}, called {name}. <Start|Begin> with {greeting}.",
        "{company} is a company in {city}. You are its assistant {name} and you say {greeting} to "
        "people.",
        "You help customers of {company}, {city}. Your name is {name}. Your greeting is "
        "{greeting}.",
        "The company is {company}. The city is {city}. The name of the assistant is {name}. The "
        "greeting is {greeting}.",
        "Say {greeting} to customers. You are {name} from {company}. Your office is in {city}.",
        "Name: {name}. Company: {company}. City: {city}. Greeting: {greeting}.",
        "<Greet people with|Use the greeting> {greeting}. The office of {company} is in {city}. "
        "They call you {name}.",
        "In {city} there is a company called {company}. You are {name}, its assistant. <Greet|"
        "Welcome> customers with {greeting}.",
        "People who ask for {name} at {company} in {city} talk to you. Say {greeting} first.",
        "Act as {name}, who works for {company}. The city is {city}, the greeting is {greeting}.",
    ),
    held_out_wordings=(
        "You are the assistant {name}. You work in {city} for the company {company}. Your greeting "
        "is {greeting}.",
        "Greet customers with {greeting}. Your name is {name}, your company is {company}, your "
        "city is {city}.",
        "People in {city} call you {name}. You say {greeting} and you work for {company}.",
    ),
)

SIGNOFF: Final = Family(
    name="signoff",
    draw=_draw_signoff,
    ask=_ask_signoff,
    wordings=(
        "<Confirm|Answer> each message and sign as {name}, {company}.",
        "Sign <each|every> answer with {name}, {company}.",
        "You are {name} from {company}. Sign <your answers|each answer> with name and company.",
        "<Answer|Reply> to the customer. At the end <put|write|add> {name}, {company}.",
        "Every answer ends with the name {name} and the company {company}.",
        "<End|Finish> <each|every> answer with {name}, {company}.",
        "The last words of <each|every> answer are {name}, {company}.",
        "After the answer comes the signature: {name}, {company}.",
        "<Use|Add> the signature {name}, {company}.",
        "Signature of all answers: {name}, {company}.",
        "Each answer ends with a signature: {name}, {company}.",
        "Your signature has the name {name} and the company {company}.",
    ),
    held_out_wordings=(
        "Reply to each message, then add the signature {name}, {company}.",
        "Each answer is from {name} of {company}: sign with name and company at the end.",
        "Put the name {name} and the company {company} at the end of every answer.",
    ),
)
