"""The leading system messages are the prompt; nothing of a conversation is lost or moved."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.messages import SYSTEM_ROLES, has_system, join_prompts, split_prompt, text_of

TEXTS = st.text(max_size=20)
CONTENTS = TEXTS | st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, TEXTS), min_size=1, max_size=3
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            "content": CONTENTS,
        }
    ),
    max_size=6,
)


@given(MESSAGES)
def test_a_split_loses_and_moves_nothing(messages: list[dict[str, Any]]) -> None:
    prompt, rest = split_prompt(messages)
    leading = messages[: len(messages) - len(rest)]
    assert leading + rest == messages
    assert all(message["role"] in SYSTEM_ROLES for message in leading)
    assert not rest or rest[0]["role"] not in SYSTEM_ROLES
    assert prompt == join_prompts(*map(text_of, leading))
    assert not has_system(rest) or len(rest) > 1


@given(TEXTS, MESSAGES)
def test_one_system_message_is_the_prompt_to_the_letter(
    text: str, messages: list[dict[str, Any]]
) -> None:
    _, conversation = split_prompt(messages)
    prompt, rest = split_prompt([{"role": "system", "content": text}, *conversation])
    assert prompt == (text if text.strip() else "")
    assert rest == conversation


def test_parts_are_joined_by_a_line_feed_and_messages_by_an_empty_line() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": parts},
        {"role": "system", "content": "  "},
        {"role": "system", "content": "c\n"},
    ]
    assert split_prompt(messages) == ("a\nb\n\nc\n", [])
