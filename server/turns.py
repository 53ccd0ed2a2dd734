"""Turns: work of which so much is done at once, and for which tenants take turns.

Compiles, measures and refines come in thousands, as when a tenant brings all its prompts along.
They wait here in place of the queue of the router service, which knows no tenants.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from loragen.errors import Overloaded
from server.line import Line

MAX_WAITING: Final = 10_000
"""Pieces of work that wait in one gateway, of one kind."""


class Turns:
    """Room for so many pieces of work at once, which tenants get in turns."""

    def __init__(self, at_once: int, *, max_waiting: int = MAX_WAITING) -> None:
        self._free = at_once
        self._max_waiting = max_waiting
        self._line: Line[asyncio.Future[None]] = Line()

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a turn of the tenant's and hold it for the length of the block.

        Raises:
            Overloaded: too much waits already, and most of it is the tenant's.
        """
        await self._wait(tenant)
        try:
            yield
        finally:
            self._free += 1
            self._serve()

    async def _wait(self, tenant: str) -> None:
        if len(self._line) >= self._max_waiting:
            self._make_room(tenant)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.join(tenant, turn)
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            self._line.leave(tenant, turn)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._free += 1  # it had come, and goes to the next
                self._serve()
            raise

    def _make_room(self, tenant: str) -> None:
        excess = self._line.in_excess(tenant)
        full = Overloaded("too many tasks wait to be compiled, measured or refined", retry_after=1)
        if excess is None:
            raise full
        self._line.leave(*excess)
        if not excess[1].done():  # else its waiter is being cancelled
            excess[1].set_exception(full)

    def _serve(self) -> None:
        for tenant, turn in self._line if self._free else ():
            if not turn.done():  # else its waiter is being cancelled
                self._free -= 1
                turn.set_result(None)
            self._line.serve(tenant, turn)
            if not self._free:
                return
