"""Conversations without Redis, in this process's memory."""

import asyncio
import time
from collections.abc import Callable, Sequence

from loragen.errors import StoreUnavailable


class MemoryConversations:
    """Keeps conversations in a dictionary; `is_away` makes it fail like a lost Redis."""

    def __init__(
        self, *, ttl_seconds: float = 3600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._until: dict[str, float] = {}
        self._ttl = ttl_seconds
        self._clock = clock
        self.is_away = False

    async def remember(self, keys: Sequence[str]) -> None:
        """Remember conversations for a time to live from here."""
        await self._reach()
        self._until.update(dict.fromkeys(keys, self._clock() + self._ttl))

    async def is_remembered(self, keys: Sequence[str]) -> bool:
        """Whether one of the keys was remembered less than a time to live ago."""
        await self._reach()
        return any(self._clock() < self._until.get(key, 0.0) for key in keys)

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do while Redis answers
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
