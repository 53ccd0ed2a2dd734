"""Messages of a conversation: which of them are system text, and which of that is the prompt.

The leading system and developer messages are the prompt. Those further on are part of the
conversation, of which they change the course, and stay where they are.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import WithJsonSchema

Message = dict[str, Any]

SYSTEM_ROLES: Final = frozenset({"system", "developer"})
_ROLES: Final = SYSTEM_ROLES | {"user", "assistant", "tool"}

_TEXT: Final = {"type": "string"}
_TEXT_PART: Final = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": _TEXT},
    "required": ["type", "text"],
}
_CONTENT: Final = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT_PART, "minItems": 1}]}
_SAID_BY_OTHERS: Final = {
    "type": "object",
    "properties": {"role": {"enum": sorted(_ROLES - {"assistant"})}, "content": _CONTENT},
    "required": ["role", "content"],
}
_SAID_BY_THE_MODEL: Final = {
    "type": "object",
    "properties": {
        "role": {"const": "assistant"},
        "content": {"anyOf": [*_CONTENT["anyOf"], {"type": "null"}]},
        "tool_calls": {"anyOf": [{"type": "array", "items": {"type": "object"}}, {"type": "null"}]},
    },
    "required": ["role"],
}
ApiMessage = Annotated[Message, WithJsonSchema({"anyOf": [_SAID_BY_OTHERS, _SAID_BY_THE_MODEL]})]
"""A message for the OpenAPI document; `check_message` holds requests to the same."""


def check_message(index: int, message: Message) -> None:
    """Refuse a message that is not text of a known role.

    Raises:
        ValueError: the message says which, by its index.
    """
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"messages.{index}.role must be one of {', '.join(sorted(_ROLES))}")
    content = message.get("content")
    if content is None and role == "assistant":
        return
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not content:
        raise ValueError(f"messages.{index}.content must be text or a list of text parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"messages.{index}.content: only text parts are supported")


def has_system(messages: Sequence[Message]) -> bool:
    """Whether a message carries system text."""
    return any(message["role"] in SYSTEM_ROLES for message in messages)


def split_prompt(messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """Return the text of the leading system messages, and the messages after them."""
    count = 0
    while count < len(messages) and messages[count]["role"] in SYSTEM_ROLES:
        count += 1
    return join_prompts(*map(text_of, messages[:count])), list(messages[count:])


def join_prompts(*texts: str) -> str:
    """Return system texts as one, without those that say nothing."""
    return "\n\n".join(text for text in texts if text.strip())


def text_of(message: Message) -> str:
    """Return a message's text; parts are joined by a line feed, as workers join them."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
