"""Conversation: one that began in prompt mode stays in it when its recipe becomes ready.

A request shows a whole conversation and no id of it. Its beginning, up to the first reply, tells
it from others; with the task it makes a keyed hash. Those answered without a recipe that may yet
come are remembered under it, also the first time, when the reply is only just being written.

Once a recipe has been ready for as long as that memory lasts, nobody is asked any more.
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from loragen.conversations import Conversations
from loragen.errors import StoreUnavailable
from loragen.keys import TenantKeys
from loragen.task import FallbackReason, Task
from server.messages import SYSTEM_ROLES, Message, text_of

logger = logging.getLogger(__name__)

_FORGOTTEN: Final[frozenset[FallbackReason | None]] = frozenset(
    {
        None, "prompt_too_long", "prompt_too_short", "requested", "operator_forced",
        "store_unavailable",
    }
)  # fmt: skip
"""Reasons after which no recipe is to be expected, or nothing can be remembered."""
_DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Conversation:
    """The beginning of a conversation that follows a task."""

    tenant: str
    task_ids: tuple[str, ...]
    """The ids of the task, or of the prompt where that may have none yet, the newest first."""
    texts: tuple[str, ...]
    """What was said up to the first reply, this included if `is_running`."""
    is_running: bool

    @classmethod
    def of(cls, tenant: str, task_ids: tuple[str, ...], messages: Sequence[Message]) -> Self:
        """Return the conversation that a request shows."""
        texts = []
        for message in messages:
            if message["role"] in SYSTEM_ROLES:
                continue
            texts.append(text_of(message).strip())
            if message["role"] == "assistant":
                return cls(tenant, task_ids, tuple(texts), is_running=True)
        return cls(tenant, task_ids, tuple(texts), is_running=False)


class ConversationRule:
    """Knows which conversations must not go over to a recipe."""

    def __init__(
        self, known: Conversations, keys: Callable[[str], TenantKeys], *, seconds: float
    ) -> None:
        """Take how many seconds `known` remembers."""
        self._known = known
        self._keys = keys
        self._seconds = seconds

    async def keeps_prompt(self, conversation: Conversation, task: Task) -> bool:
        """Whether a conversation is to stay without its task's recipe."""
        since = task.ready_at or 0
        if not conversation.is_running or time.time() > since + self._seconds:
            return False
        try:
            return await self._known.is_remembered(self._keys_of(conversation))
        except StoreUnavailable:
            return True  # the whole prompt is never wrong

    async def remember(self, conversation: Conversation, replies: Sequence[str]) -> None:
        """Remember a conversation answered without a recipe; `replies` are its first, if any."""
        if conversation.is_running:
            keys = [self._keys_of(conversation)[0]]
        else:
            keys = [self._keys_of(conversation, reply.strip())[0] for reply in replies]
        try:
            await self._known.remember(keys)
        except StoreUnavailable:
            logger.warning("conversation not remembered")

    def _keys_of(self, conversation: Conversation, *reply: str) -> list[str]:
        """Return all keys that gateways may know a conversation by, first the one to write."""
        keys = self._keys(conversation.tenant)
        texts = [*conversation.texts, *reply]
        return [
            f"{conversation.tenant}:{key}"
            for task_id in conversation.task_ids
            for key in keys.conversation_keys(task_id=task_id, texts=texts)
        ]


def is_to_be_remembered(reason: FallbackReason | None) -> bool:
    """Whether a conversation answered for this reason could find a recipe later."""
    return reason not in _FORGOTTEN


def replies(answer: Mapping[str, Any]) -> list[str]:
    """Return the texts of a complete chat answer."""
    return [text_of(choice.get("message", {})) for choice in answer.get("choices", ())]


async def overheard(
    events: AsyncIterator[bytes], listen: Callable[[Sequence[str]], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Yield the events of a chat stream; before the last, `listen` is awaited with its texts."""
    texts: dict[int, str] = {}
    async for event in events:
        if event == _DONE:
            await listen(list(texts.values()))
        else:
            for choice in json.loads(event.removeprefix(b"data: ")).get("choices", ()):
                text = choice.get("delta", {}).get("content") or ""
                texts[choice["index"]] = texts.get(choice["index"], "") + text
        yield event
