"""Background: how the loops of an application go on and end."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

logger = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS: Final = 0.2
_RUN_AGAIN_SECONDS: Final = 1.0


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended: redis-py can swallow a cancellation, and loops go on."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


def keep(loop: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Run a loop until it is done or cancelled: what it did not expect is logged, not its end."""
    return asyncio.create_task(_run_again(loop))


async def _run_again(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            return await loop()
        except Exception:
            logger.exception("background loop failed")
            await asyncio.sleep(_RUN_AGAIN_SECONDS)
