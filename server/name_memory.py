"""What names stood for when Redis was last asked, for the time that it does not answer.

Redis is asked for every request by name, so an edit is seen at once in all gateways. While it is
away, requests by name go on as those by task id do.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from loragen.errors import StoreUnavailable
from loragen.names import Names


class NameMemory:
    """The names this gateway has met; the least recently used gives way."""

    def __init__(
        self,
        names: Names,
        *,
        entries: int,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """After a failure a name that is known is not asked for again for `retry_seconds`."""
        self._names = names
        self._capacity = entries
        self._retry = retry_seconds
        self._clock = clock
        self._retry_at = clock()
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def find(self, tenant: str, name: str) -> str | None:
        """Return the id of the task a name stands for.

        Raises:
            StoreUnavailable: Redis is away and the name is not known.
        """
        key = (tenant, name)
        known = self._known.get(key)
        if known is not None and self._clock() < self._retry_at:
            return known
        found = await self._ask(key, known)
        self._known.pop(key, None)
        if found is not None:
            self._known[key] = found
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return found

    async def _ask(self, key: tuple[str, str], known: str | None) -> str | None:
        try:
            return await self._names.find(*key)
        except StoreUnavailable:
            if known is None:
                raise
            # Else every request would wait for a Redis that hangs.
            self._retry_at = self._clock() + self._retry
            return known
