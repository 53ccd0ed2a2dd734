"""What names stood for when Redis was last asked, for the time that it does not answer.

Redis is asked for every request by name, so an edit is seen at once in all gateways. While it is
away, requests by name go on as those by task id do: with what each name stood for last, since
every edit makes all gateways forget the name, and a gateway that may have missed one forgets all.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from loragen.errors import StoreUnavailable
from loragen.invalidations import Invalidations
from loragen.names import Names

logger = logging.getLogger(__name__)


class NameMemory:
    """The names this gateway has met; the least recently used gives way."""

    def __init__(
        self,
        names: Names,
        invalidations: Invalidations,
        *,
        entries: int,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """After a failure a name that is known is not asked for again for `retry_seconds`."""
        self._names = names
        self._invalidations = invalidations
        self._capacity = entries
        self._retry = retry_seconds
        self._clock = clock
        self._retry_at = clock()
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._edits = 0

    async def find(self, tenant: str, name: str) -> str | None:
        """Return the id of the task a name stands for.

        Raises:
            StoreUnavailable: Redis is away and the name is not known.
        """
        key = (tenant, name)
        known = self._known.get(key)
        if known is not None and self._clock() < self._retry_at:
            return known
        edits = self._edits
        found = await self._ask(key, known)
        self._known.pop(key, None)
        if found is not None and edits == self._edits:  # else it may be from before an edit
            self._known[key] = found
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return found

    def forget(self, tenant: str, name: str) -> None:
        """Forget what a name stood for."""
        self._edits += 1
        self._known.pop((tenant, name), None)

    async def changed(self, tenant: str, name: str) -> None:
        """Make every gateway forget a name. Call it after Redis holds the change."""
        self.forget(tenant, name)
        try:
            await self._invalidations.publish(tenant, name)
        except StoreUnavailable:
            logger.warning("edit of a name not told", extra={"tenant": tenant})

    async def follow(self) -> None:
        """Forget what is edited anywhere, until cancelled."""
        await self._invalidations.follow(self.forget, self._forget_all)

    def _forget_all(self) -> None:
        self._edits += 1
        self._known.clear()

    async def _ask(self, key: tuple[str, str], known: str | None) -> str | None:
        try:
            return await self._names.find(*key)
        except StoreUnavailable:
            if known is None:
                raise
            # Else every request would wait for a Redis that hangs.
            self._retry_at = self._clock() + self._retry
            return known
