"""Drain: how a service ends without breaking an answer. Gateway and worker both end this way.

It goes on with what runs until a deadline, and what has not ended by then is cut off.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Drain:
    """Whether a service is ending, and when what it is still answering is cut off."""

    def __init__(self) -> None:
        self._cut_at: float | None = None
        self._limits: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def has_begun(self) -> bool:
        """Whether the service is ending."""
        return self._cut_at is not None

    def begin(self, *, seconds: float) -> None:
        """Give everything under way, and all that still comes, so many seconds from now."""
        self._cut_at = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(self._cut_at)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[asyncio.Timeout]:
        """Cut the block off when the time is over.

        Raises:
            TimeoutError: it was; the limit says it has expired.
        """
        async with asyncio.timeout_at(self._cut_at) as limit:
            self._limits.add(limit)
            self._idle.clear()
            try:
                yield limit
            finally:
                self._limits.discard(limit)
                if not self._limits:
                    self._idle.set()

    async def wait_idle(self) -> None:
        """Return when nothing is under way."""
        await self._idle.wait()
