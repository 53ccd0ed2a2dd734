"""Leases without Redis, in this process's memory."""

import asyncio
import time
from collections.abc import Callable, Collection

from loragen.errors import StoreUnavailable


class MemoryLeases:
    """Keeps leases in a dictionary; `is_away` makes it fail like a lost Redis."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._held: dict[str, tuple[str, float]] = {}
        self._clock = clock
        self.is_away = False

    async def acquire(self, name: str, token: str, *, seconds: float) -> bool:
        """Take the lease; False if another token holds it."""
        await self._reach()
        if self._holder(name) is not None:
            return False
        self._held[name] = (token, self._clock() + seconds)
        return True

    async def renew(self, name: str, token: str, *, seconds: float) -> bool:
        """Prolong the lease; False if this token does not hold it any more."""
        await self._reach()
        if self._holder(name) != token:
            return False
        self._held[name] = (token, self._clock() + seconds)
        return True

    async def release(self, name: str, token: str) -> bool:
        """Give the lease back; False if this token does not hold it any more."""
        await self._reach()
        if self._holder(name) != token:
            return False
        del self._held[name]
        return True

    async def held(self, names: Collection[str]) -> set[str]:
        """Return those of the leases that somebody holds."""
        await self._reach()
        return {name for name in names if self._holder(name) is not None}

    def _holder(self, name: str) -> str | None:
        token, until = self._held.get(name, (None, 0.0))
        return token if self._clock() < until else None

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
