"""Edit families: the prompt says what to change in the message before giving it back."""

from collections.abc import Callable
from random import Random
from typing import Final

from loragen.suite.family import Family, Turn, Values, draw_phrase, draw_phrase_with
from loragen.suite.rewrites import ASK_BACK, words_of
from loragen.suite.tenant_words import BULLETS, COUNTS, JOINTS
from loragen.suite.words import ITEMS, MARKS


def _asker(edit: Callable[[list[str], Values], str]) -> Callable[[Random, Values], Turn]:
    """Return a function that asks with bare words, which `edit` turns into the answer."""

    def ask(rng: Random, values: Values) -> Turn:
        words = words_of(rng)
        return Turn(" ".join(words), edit(words, values), ASK_BACK)

    return ask


REVERSE: Final = Family(
    name="reverse",
    draw=draw_phrase,
    ask=_asker(lambda words, values: " ".join([*reversed(words), values["mark"]])),
    marks=("mark",),
    wordings=(
        "<Reverse|Turn around> the order of the words and <add|say|write> {mark}.",
        "<Write|Give|Say> the words in reverse order, then {mark}.",
        "<Write|Give|Say> the words from last to first and <end|finish> with {mark}.",
        "The last word comes first and the first word last. <Add|End with> {mark}.",
        "Reverse <each|every|the> <message|text> and <end|finish> with {mark}.",
        "<Start|Begin> with the last word and go back to the first. Then <say|write> {mark}.",
        "Every answer has the words of the message in reverse order and then {mark}.",
        "<Read|Write> the message from the end. <Add|Finish with> {mark}.",
        "The order of the words is reversed in your answer. {mark} comes after it.",
        "Turn the <message|text> around, then <say|write> {mark}.",
    ),
    held_out_wordings=(
        "<Give|Write> the <message|text> in reverse order and <add|say> {mark}.",
        "Your answer has the words from last to first, then {mark}.",
        "Turn around the order of the words. <Finish|End> with {mark}.",
        "<Reverse|Turn around> every message, and write {mark} after it.",
    ),
)

TWICE: Final = Family(
    name="twice",
    draw=draw_phrase,
    ask=_asker(lambda words, values: " ".join([*words, values["mark"], *words])),
    marks=("mark",),
    wordings=(
        "<Repeat|Copy|Write|Say> the <message|text> twice with {mark} between.",
        "<Repeat|Copy|Write> the <message|text>, then {mark}, then the <message|text> again.",
        "<Put|Write|Say> {mark} between two copies of the <message|text>.",
        "Every answer is the message, {mark}, and the message again.",
        "Give the <message|text> two times. Between them <put|write|say> {mark}.",
        "The message comes twice in your answer, with {mark} in the middle.",
        "Copy the <message|text>. <Add|Write|Say> {mark}. Copy it again.",
        "{mark} stands between the message and its copy. <Write|Give> all three.",
        "<Say|Write> it twice: the message, {mark}, the message.",
        "{mark} comes before the second copy of the message and after the first.",
    ),
    held_out_wordings=(
        "<Write|Give> two copies of the message with {mark} between them.",
        "Your answer is the message <twice|two times>, {mark} in the middle.",
        "<Repeat|Say> the message before {mark}, and after it again.",
        "<Copy|Write> the text, say {mark}, and copy the text again.",
    ),
)

JOIN: Final = Family(
    name="join",
    draw=draw_phrase_with("joint", JOINTS),
    ask=_asker(lambda words, values: f" {values['joint']} ".join(words) + f" {values['mark']}"),
    marks=("mark",),
    wordings=(
        "<Put|Write> {joint} between the words and <add|end with|finish with> {mark}.",
        "<Join|Link> the words with {joint} and <add|end with|finish with> {mark}.",
        "Between <all|the> words <put|write> {joint}. At the end <put|write|say> {mark}.",
        "Every answer has the words with {joint} between them, then {mark}.",
        "The sign between the words is {joint}. The last word is {mark}.",
        "<Repeat|Copy> the words, but with {joint} between them. <Add|Finish with> {mark}.",
        "Use {joint} to <join|link> the words. <Then say|Add> {mark}.",
        "Write the message with {joint} between its words and {mark} after it.",
        "{joint} stands between the words of your answer, {mark} at its end.",
    ),
    held_out_wordings=(
        "<Link|Join> all words of the message by {joint}, then <say|write> {mark}.",
        "Copy the message with {joint} between the words and <end|finish> with {mark}.",
        "The words have {joint} between them, and {mark} comes at the end.",
        "<Use|Write> {joint} between all words and {mark} after them.",
    ),
)

LIST: Final = Family(
    name="list",
    draw=draw_phrase_with("bullet", BULLETS),
    ask=_asker(
        lambda words, values: "\n".join(
            [f"{values['mark']}:", *(f"{values['bullet']} {word}" for word in words)]
        )
    ),
    marks=("mark",),
    wordings=(
        "<Write|Give> the words as a list with {bullet} under the title {mark}.",
        "The title is {mark}. <Under|After> it <each|every> word has its own line with {bullet}.",
        "<Make|Write> a list called {mark}. <Each|Every> line <starts|begins> with {bullet}.",
        "First <write|give> the line {mark}, then a line with {bullet} for <each|every> word.",
        "<Each|Every> answer is a list: the title {mark}, then lines that start with {bullet}.",
        "Put <each|every> word on its own line after {bullet}. The first line is {mark}.",
        "List the words. <Use|Write> {bullet} for the lines and {mark} for the title.",
        "<Make|Write> a line with {bullet} for <each|every> word. The title is {mark}.",
        "<Answer|Reply> with a list. Title: {mark}. Lines: {bullet} and a word.",
        "Your answer has the title {mark} and a line with {bullet} for each word.",
    ),
    held_out_wordings=(
        "<Make|Give> a list with the title {mark}, each word after {bullet}.",
        "The first line is {mark}. The other lines <start|begin> with {bullet}.",
        "List <every word|the words> under {mark}, with {bullet} on each line.",
        "<Use|Write> the title {mark} and then a line with {bullet} for every word.",
    ),
)

COUNT: Final = Family(
    name="count",
    draw=draw_phrase,
    ask=_asker(lambda words, values: f"{COUNTS[len(words)]} {values['mark']}"),
    marks=("mark",),
    wordings=(
        "<Say|Write|Give> how many words the message has and <add|then say> {mark}.",
        "Count the words. <Say|Write|Give> the <count|number> and then {mark}.",
        "<Answer|Reply> with the number of words and <end|finish> with {mark}.",
        "How many words are there? <Say|Write> the number, then {mark}.",
        "<Count|Say> how many words <there are|the message has>. <End with|Add> {mark}.",
        "Every answer is the number of words in the message, then {mark}.",
        "Count <all|the> words of <each|every> message. After the number comes {mark}.",
        "You count words. <Add|Say|Write> {mark} after the number.",
        "The answer is a number, how many words there are, and the word {mark}.",
    ),
    held_out_wordings=(
        "<Count|Say> how many words there are, then <add|say> {mark}.",
        "<Give|Say> the number of words in each message and {mark} after it.",
        "Your answer is how many words the message has, then {mark}.",
        "You count the words. <Finish|End> with {mark}.",
    ),
)


def _ask_tag(rng: Random, values: Values) -> Turn:
    item, tag = rng.choice(ITEMS), values["tag"]
    question = rng.choice(("{item}", "the {item}", "I want a {item}.", "{item}, please"))
    answer = f"<{tag}>{item}</{tag}> {values['mark']}"
    return Turn(question.format(item=item), answer, ASK_BACK)


TAG: Final = Family(
    name="tag",
    draw=draw_phrase_with("tag", MARKS),
    ask=_ask_tag,
    marks=("mark",),
    wordings=(
        "<Put|Write> the item in the tag {tag} and <add|end with|finish with> {mark}.",
        "<Use|Write> the tag {tag} around the item. <Then say|Add> {mark}.",
        "Every answer has the item in a tag called {tag}, then {mark}.",
        "Your answer is the item between tags. The tag is {tag}. After it comes {mark}.",
        "<Find|Take> the item and <put|write> it in the tag {tag}, then <say|write> {mark}.",
        "Tag: {tag}. The item goes in it. <End|Finish> with {mark}.",
        "The item <stands|goes> in the tag {tag} and {mark} comes after it.",
        "<Put|Write> {tag} tags around the item of <each|every> message, then {mark}.",
        "<Answer|Reply> with the tag {tag} around the item and the word {mark}.",
        "The user names an item. <Put|Write> it in {tag} tags and <add|say> {mark}.",
    ),
    held_out_wordings=(
        "<Put|Write> {tag} tags around the item and <say|add> {mark} after it.",
        "Find the item. It goes in the tag {tag}, then comes {mark}.",
        "<Give|Write> the item in a tag. Use {tag} as the tag and <end|finish> with {mark}.",
        "Your answer has a tag called {tag} around the item, then {mark}.",
    ),
)
