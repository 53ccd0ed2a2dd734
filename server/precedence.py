"""Precedence: which of the requests that wait at a worker goes first.

Every request has a place among all of its edge model's, by how much its tenant has had
(`loragen.clocks`), and workers take the lowest first. While Redis is away nobody can say, and a
request gets the virtual time that was heard of last: ahead of no tenant, behind none.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from loragen.clocks import Clocks, Place, Work
from loragen.errors import StoreUnavailable
from loragen.limits import LEASE_SECONDS
from server.tally import Estimate
from server.visit import Visit

RENEWAL_SECONDS: Final = LEASE_SECONDS / 3


class Precedence:
    """Gives the requests of this gateway their places; an outage of Redis is none of it."""

    def __init__(
        self,
        clocks: Clocks,
        *,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """After a failure Redis is not asked again for `retry_seconds`."""
        self._clocks = clocks
        self._retry = retry_seconds
        self._clock = clock
        self._retry_at = clock()
        self._now: dict[str, int] = {}
        self._held: dict[str, Place] = {}

    async def take(self, visit: Visit, model: str, estimate: Estimate) -> int:
        """Return the priority of a request to an edge model; a lower one goes first."""
        if self._clock() >= self._retry_at:
            work = Work(estimate.prompt_tokens, estimate.generated_tokens)
            try:
                place = await self._clocks.start(visit.tenant.id, model, uuid4().hex, work)
            except StoreUnavailable:
                self._retry_at = self._clock() + self._retry
            else:
                self._now[model] = place.now
                self._held[place.request] = visit.place = place
                return place.tag
        return self._now.get(model, 0)

    async def leave(self, visit: Visit) -> None:
        """Charge what a request has cost; called again, it does nothing."""
        place, visit.place = visit.place, None
        if place is None:
            return
        self._held.pop(place.request, None)
        if self._clock() < self._retry_at:
            return  # what is not said ends by itself
        try:
            await self._clocks.settle(place, visit.tally.work)
        except StoreUnavailable:
            self._retry_at = self._clock() + self._retry

    async def renew_forever(self) -> None:
        """Say again and again which requests run or wait here, until cancelled."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            try:
                await self._clocks.renew(list(self._held.values()))
            except StoreUnavailable:
                self._retry_at = self._clock() + self._retry
