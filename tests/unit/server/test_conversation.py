"""A conversation is known by its beginning, its first reply included, streamed or not."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from loragen.keys import TenantKeys
from loragen.task import Task
from server.conversation import Conversation, ConversationRule, overheard, replies
from tests.contract.store_contract import TENANT, task_of
from tests.fakes.memory_conversations import MemoryConversations

SECONDS = 60.0


def said(*texts: str) -> Conversation:
    """Return the conversation of user and assistant turns."""
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    system = {"role": "system", "content": "changes every time"}
    return Conversation.of(TENANT, ("task_a",), [system, *messages])


def ready(seconds_ago: float = 0.0) -> Task:
    return task_of(0, ready_at=int(time.time() - seconds_ago))


def rule(known: MemoryConversations) -> ConversationRule:
    return ConversationRule(known, lambda tenant: TenantKeys((bytes(32),), tenant), seconds=SECONDS)


async def test_what_was_answered_from_the_prompt_keeps_it() -> None:
    rules = rule(MemoryConversations())
    await rules.remember(said("hello"), ["hi ", "hey"])  # n = 2
    assert await rules.keeps_prompt(said("hello", "hi", "go on"), ready())
    assert await rules.keeps_prompt(said("hello", "hey\n", "go on", "sure", "and?"), ready())
    assert not await rules.keeps_prompt(said("hello", "ho", "go on"), ready())
    assert not await rules.keeps_prompt(said("hello"), ready())  # a beginning may be compiled


async def test_a_running_conversation_is_remembered_by_what_it_shows() -> None:
    rules = rule(MemoryConversations())
    await rules.remember(said("hello", "edited", "go on"), ["whatever comes"])
    assert await rules.keeps_prompt(said("hello", "edited", "go on", "x", "y"), ready())


async def test_long_after_the_switch_nobody_is_asked() -> None:
    known = MemoryConversations()
    rules = rule(known)
    await rules.remember(said("hello", "hi", "go on"), [])
    known.is_away = True
    running = said("hello", "hi", "go on")
    assert not await rules.keeps_prompt(running, ready(SECONDS + 2))
    assert not await rules.keeps_prompt(running, task_of(0))  # of a version without the date
    assert await rules.keeps_prompt(running, ready())  # the whole prompt is never wrong


async def test_a_conversation_that_cannot_be_remembered_is_answered() -> None:
    known = MemoryConversations()
    known.is_away = True
    await rule(known).remember(said("hello"), ["hi"])


def test_tool_calls_are_a_reply_without_words() -> None:
    call: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    conversation = Conversation.of(TENANT, ("t",), [{"role": "user", "content": "hello"}, call])
    assert conversation.texts == ("hello", "")
    assert conversation.is_running
    assert replies({"choices": [{"message": call}]}) == [""]


async def test_a_stream_passes_as_it_is_and_is_heard_before_its_end() -> None:
    def chunk(index: int, **delta: Any) -> bytes:
        body = {"choices": [{"index": index, "delta": delta}]}
        return b"data: " + json.dumps(body).encode() + b"\n\n"

    events = [
        chunk(0, role="assistant", content=""), chunk(1, content="he"), chunk(0, content="hi"),
        chunk(1, content="y"), chunk(0), b'data: {"choices":[],"usage":{}}\n\n',
        b"data: [DONE]\n\n",
    ]  # fmt: skip
    heard: list[list[str]] = []
    count = 0

    async def stream() -> AsyncIterator[bytes]:
        for event in events:
            yield event

    async def listen(texts: Sequence[str]) -> None:
        assert count == len(events) - 1
        heard.append(list(texts))

    async for event in overheard(stream(), listen):
        assert event == events[count]
        count += 1
    assert count == len(events)
    assert heard == [["hi", "hey"]]


async def test_a_stream_that_breaks_off_is_not_remembered() -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b'data: {"error":{"message":"lost"}}\n\n'

    async def listen(texts: Sequence[str]) -> None:
        raise AssertionError

    assert [event async for event in overheard(stream(), listen)]
