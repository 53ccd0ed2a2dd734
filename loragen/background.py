"""Background: how the loops of an application go on and end."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

logger = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS: Final = 0.2
_RUN_AGAIN_SECONDS: Final = 1.0
JOB_ENDS_SECONDS: Final = 5.0
"""For a job that is cancelled to give back its leases, with Redis slow."""


async def end(
    tasks: Collection[asyncio.Task[Any]], *, again_seconds: float = _CANCEL_AGAIN_SECONDS
) -> None:
    """Cancel tasks until they have ended: redis-py can swallow a cancellation, and loops go on.

    What gives leases back as it ends needs `again_seconds` enough for that.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_seconds)
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
