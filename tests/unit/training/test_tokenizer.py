"""The shipped tokenizer keeps every text, knows suite words, and renders one way."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from loragen.errors import InvalidRequest
from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from loragen.suite.words import COMPANIES, ITEMS, MARKS, NAMES
from loragen.template import CompiledTemplate
from loragen.training.tokenizer import CHAT_TEMPLATE, COMPILED_TEMPLATE, ROLES, SPACE

EDGE = Path(__file__).parents[3] / "checkpoints" / "small" / "edge"
TOKENIZER: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(EDGE)
TEMPLATE = CompiledTemplate.load(EDGE / "compiled_template.jinja")
ITEM = {"type": "object", "properties": {"item": {"type": "string"}}}
PRICE = {"name": "price", "description": "Say it.", "parameters": ITEM}
TOOLS = [{"type": "function", "function": PRICE}]
TOOL_LIST = (
    'Tools:\n{"name":"price","description":"Say it.","parameters":'
    '{"type":"object","properties":{"item":{"type":"string"}}}}'
)

TOOL_CALL: dict[str, Any] = {"function": {"name": "price", "arguments": '{"item": "lamp"}'}}
CHATS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "Hello!"}],
    [{"role": "system", "content": "Say amber."}, {"role": "user", "content": "Hello!"}],
    [{"role": "developer", "content": "Say amber."}, {"role": "user", "content": "a\n b"}],
    [
        {"role": "user", "content": "How old is the lamp?"},
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "Seven."},
        {"role": "user", "content": "Thanks"},
    ],
)


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


@given(st.text())
@example("  two  spaces \n\t")
@example("\U0001f600 Ünïcödé \x00 ")
def test_any_text_survives(text: str) -> None:
    shown = text.replace(SPACE, " ")  # as in every Llama tokenizer, U+2581 reads as a space
    assert TOKENIZER.decode(encode(text)) == shown


@pytest.mark.parametrize("word", [*NAMES, *COMPANIES, *MARKS, *ITEMS])
def test_suite_words_are_single_tokens(word: str) -> None:
    assert len(encode(word)) == 1
    assert len(encode(f" {word}")) == 1


def test_raw_text_starts_with_bos_and_chats_hold_it_once() -> None:
    assert TOKENIZER("Hello!")["input_ids"][0] == TOKENIZER.bos_token_id
    assert encode(TEMPLATE.render(CHATS[0])).count(TOKENIZER.bos_token_id) == 1


def test_roles_and_end_are_single_tokens_that_text_output_skips() -> None:
    for token in (*ROLES, str(TOKENIZER.eos_token)):
        ids = encode(token)
        assert len(ids) == 1
        assert TOKENIZER.decode(ids, skip_special_tokens=True) == ""


@pytest.mark.parametrize("messages", CHATS)
@pytest.mark.parametrize("prompted", [True, False])
def test_both_renderers_agree(messages: list[dict[str, Any]], prompted: bool) -> None:
    theirs = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted)
    assert TEMPLATE.render(messages, add_generation_prompt=prompted) == theirs


@pytest.mark.parametrize(
    ("chat", "listed"),
    [(CHATS[0], f"<|system|>{TOOL_LIST}<|end|>"), (CHATS[1], f"\n\n{TOOL_LIST}")],
)
def test_only_the_own_template_prints_tools(chat: list[dict[str, Any]], listed: str) -> None:
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, "tools": TOOLS}
    own: Any = TOKENIZER.apply_chat_template(chat, **options)
    compiled: Any = TOKENIZER.apply_chat_template(chat, chat_template=TEMPLATE.source, **options)
    assert listed in own
    assert own.replace(listed, "") == compiled == TEMPLATE.render(chat)


def test_the_shipped_templates_are_those_of_training() -> None:
    assert (EDGE / "chat_template.jinja").read_text("utf-8") == CHAT_TEMPLATE
    assert (EDGE / "compiled_template.jinja").read_text("utf-8") == COMPILED_TEMPLATE


def test_the_compiled_template_has_no_system_text() -> None:
    assert TEMPLATE.render(CHATS[0]) == "<s><|user|>Hello!<|end|><|assistant|>"
    with pytest.raises(InvalidRequest):
        TEMPLATE.render([{"role": "wizard", "content": ""}])


def test_turns_tokenized_apart_join_to_the_whole_chat() -> None:
    prompt = SMALL.draw(SMALL.seen[0], Split.TRAIN, 0)
    turn = prompt.ask(Random(0))
    chat = [
        {"role": "system", "content": prompt.text},
        {"role": "user", "content": turn.question},
        {"role": "assistant", "content": turn.answer},
    ]
    whole = encode(TEMPLATE.render(chat, add_generation_prompt=False))
    head = encode(TEMPLATE.render(chat[:1], add_generation_prompt=False))
    tail = encode(TEMPLATE.render(chat[1:], add_generation_prompt=False))[1:]
    assert head + tail == whole
