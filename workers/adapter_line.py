"""Adapter line: requests of the materialise backend wait here for a slot, first come first served.

vLLM passes over a request whose adapter has no slot and goes on with later ones that have, whatever
their priority: tasks that always have a request running would keep their slots for ever.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class AdapterLine:
    """Lets in requests of as many different adapters as there are slots."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._running: Counter[str] = Counter()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def turn(self, adapter: str) -> AsyncIterator[None]:
        """Wait until an adapter has a slot, and keep it for the length of the block.

        Whoever comes later waits behind, even where its adapter has a slot: so some slot falls
        free.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((adapter, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve()  # it may have been the first, and goes
            else:  # it had come
                self._end(adapter)
            raise
        try:
            yield
        finally:
            self._end(adapter)

    def _end(self, adapter: str) -> None:
        self._running[adapter] -= 1
        if not self._running[adapter]:
            del self._running[adapter]
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            adapter, turn = self._waiting[0]
            is_full = len(self._running) >= self._slots and adapter not in self._running
            if is_full and not turn.cancelled():
                return
            self._waiting.popleft()
            if not turn.cancelled():
                self._running[adapter] += 1
                turn.set_result(None)
