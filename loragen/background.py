"""Background: how the loops of an application end."""

import asyncio
from collections.abc import Collection
from typing import Final

_CANCEL_AGAIN_SECONDS: Final = 0.2


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: redis-py can swallow a cancellation, and loops go on."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
