"""The states of pools without Redis, in this process's memory."""

import asyncio

from loragen.errors import StoreUnavailable
from loragen.pools import PoolState


class MemoryPoolStates:
    """Keeps states in a dictionary; `is_away` makes it fail like a lost Redis."""

    def __init__(self) -> None:
        self._states: dict[str, PoolState] = {}
        self.is_away = False

    async def read(self) -> dict[str, PoolState]:
        """Return the state of every edge model of which one is known."""
        await self._reach()
        return dict(self._states)

    async def replace(self, model: str, before: PoolState, after: PoolState) -> bool:
        """Change a state unless it is another than `before` by now; False if it is."""
        await self._reach()
        if self._states.get(model, PoolState()) != before:
            return False
        self._states[model] = after
        return True

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
