"""A worker reads no more of a compiled request than its messages hold, or its template leaks."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from loragen.template import FILE_NAME, CompiledTemplate
from loragen.wire import COMPILED_SWITCH
from server.answer import Provenance
from server.plan import Plan
from server.tally import Tally

EDGE = Path(__file__).parents[3] / "checkpoints" / "small" / "edge"
PROMPT = "You help customers of a shop. " * 6
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": "日本語の長い文章です。" * 5 + "🦙"}],
    [{"role": "user", "content": [{"type": "text", "text": "parts"}]}],
    [{"role": "system", "content": "Stay."}, {"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "Noon."},
        {"role": "user", "content": "And now?"},
    ],
]


def read(text: str) -> int:
    """Return how many tokens the shipped edge model's worker reads."""
    tokenizer = AutoTokenizer.from_pretrained(EDGE)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def tally(messages: list[dict[str, Any]], tokens: int, **kwargs: Any) -> Tally:
    """Return the tally of a chat of which a worker has read so many tokens."""
    body = {"messages": messages, "chat_template_kwargs": {COMPILED_SWITCH: True}, **kwargs}
    provenance = Provenance(mode="compiled", task_id="task_a", recipe_id=None)
    held = Tally(
        most_prompt_tokens=Plan("/v1/chat/completions", body, None, provenance).most_prompt_tokens
    )
    held.read({"prompt_tokens": tokens, "completion_tokens": 1})
    return held


def flattened(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**each, "content": "".join(part["text"] for part in each["content"])}
        if isinstance(each["content"], list)
        else each
        for each in messages
    ]


@pytest.mark.parametrize("messages", CHATS)
def test_the_compiled_template_stays_within_the_messages(messages: list[dict[str, Any]]) -> None:
    text = CompiledTemplate.load(EDGE / FILE_NAME).render(flattened(messages))
    assert not tally(messages, read(text)).is_unstripped


@pytest.mark.parametrize("messages", [CHATS[0], CHATS[1], CHATS[3], CHATS[4]])
def test_one_that_prints_the_prompt_is_found_out(messages: list[dict[str, Any]]) -> None:
    """As a worker's would that ignores the switch and falls back to a prompt of its own."""
    source = CompiledTemplate.load(EDGE / FILE_NAME).source
    text = CompiledTemplate(PROMPT + source).render(flattened(messages))
    assert tally(messages, read(text)).is_unstripped


def test_other_templates_are_not_held_to_it() -> None:
    assert not tally(CHATS[0], 10_000, chat_template_kwargs={}).is_unstripped
    assert not Tally().is_unstripped
