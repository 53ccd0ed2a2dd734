"""Turns of a chat: what a chat template prints around a user's message, and behind an answer."""

from collections.abc import Sequence
from typing import Final

from loragen.errors import InvalidRequest
from loragen.own_template import OwnTemplate

_MARK: Final = "LORAGEN-PROBE"
"""Stands where a text is, to find what a template prints around it."""


def user_turn(
    template: OwnTemplate, system: Sequence[dict[str, str]], tools: Sequence[dict[str, object]]
) -> tuple[str, str]:
    """Return what a chat template prints before a user's first message, and what after it.

    Raises:
        InvalidRequest: it refuses the conversation.
    """
    text = template.try_render([*system, {"role": "user", "content": _MARK}], tools=tools)
    before, mark, after = (text or "").rpartition(_MARK)
    if not mark or not after:
        raise InvalidRequest("the edge model's chat template has no turn to make up probes for")
    return before, after


def behind_answer(template: OwnTemplate) -> str:
    """Return what a chat template prints behind an answer; nothing if it refuses the chat."""
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _MARK}]
    return (template.try_render(chat) or "").rpartition(_MARK)[2]
