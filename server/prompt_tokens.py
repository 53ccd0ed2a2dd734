"""Prompt tokens: how many tokens prompt and tools add to a conversation, as workers count."""

import asyncio
from typing import Final

from loragen.tools import Tools
from server.dispatch import Dispatcher

_EMPTY_TURN: Final = {"role": "user", "content": ""}


async def count_prompt_tokens(
    dispatcher: Dispatcher, model: str, prompt: str, tools: Tools = ()
) -> int:
    """Return how many more tokens a conversation has in prompt mode than in compiled mode.

    Raises:
        InvalidRequest: the model's template refuses a system message.
        EdgeModelNotFound, WorkerUnavailable, DeadlineExceeded: see `Dispatcher.send`.
    """
    system = {"role": "system", "content": prompt}
    messages = [system, _EMPTY_TURN] if prompt else [_EMPTY_TURN]
    prompted, bare = await asyncio.gather(
        dispatcher.count_tokens(model, messages, tools=tools),
        dispatcher.count_tokens(model, [_EMPTY_TURN], is_compiled=True),
    )
    return prompted - bare
