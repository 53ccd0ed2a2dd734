"""Gatekeeper: the limits of tenants, while Redis answers and while it does not.

A tenant without limits costs nothing here. What counts is in Redis, so that gateways count
together; a gateway says every few seconds which requests still run, and what it does not say so of
ends by itself.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from uuid import uuid4

from loragen import metrics
from loragen.errors import StoreUnavailable
from loragen.limits import LEASE_SECONDS, Admission, Level, Limiter, excess
from loragen.tenants import Tenant

RENEWAL_SECONDS: Final = LEASE_SECONDS / 3

_UNCOUNTED: Final = Admission(None, None)

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Entry:
    """A request that came: how full that left its tenant's windows, and what it runs under."""

    admission: Admission
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """Tokens taken before it is known how many a request needs."""

    tokens: int
    cell: int
    level: Level


class Gatekeeper:
    """Counts what tenants ask for and refuses what is too much.

    While Redis is away every method does without it, or raises StoreUnavailable where the
    operator wants that.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        is_open_without_store: bool,
        retry_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """After a failure Redis is not asked again for `retry_seconds`."""
        self._limiter = limiter
        self._is_open = is_open_without_store
        self._retry = retry_seconds
        self._clock = clock
        self._retry_at = clock()
        self._running: dict[str, str] = {}

    async def admit(self, tenant: Tenant) -> Entry:
        """Count a request that comes, unless a limit refuses it."""
        if not tenant.limits.at_entrance:
            return Entry(_UNCOUNTED)
        lease = uuid4().hex
        admission = await self._ask(partial(self._limiter.admit, tenant.id, tenant.limits, lease))
        if admission is None:
            return Entry(_UNCOUNTED)
        if admission.refused_by is not None or tenant.limits.concurrent_requests is None:
            return Entry(admission)
        self._running[lease] = tenant.id
        return Entry(admission, lease)

    async def leave(self, tenant: Tenant, lease: str) -> None:
        """Say that a request has ended."""
        self._running.pop(lease, None)
        await self._tell(partial(self._limiter.leave, tenant.id, lease))

    async def reserve(self, tenant: Tenant, tokens: int) -> Reservation | None:
        """Take as many tokens as a request may need; None where nobody counts them.

        Raises:
            LimitExceeded: the tenant has not so many left.
        """
        limit = tenant.limits.tokens_per_minute
        if limit is None:
            return None
        take = partial(self._limiter.take, tenant.id, "tokens", limit=limit, amount=tokens)
        taken = await self._ask(take)
        if taken is None:
            return None
        if taken.cell is None:
            raise excess("tokens", limit, retry_after=taken.retry_seconds)
        return Reservation(tokens, taken.cell, taken.level)

    async def settle(self, tenant: Tenant, reservation: Reservation, *, used: int) -> None:
        """Put right what was reserved by the tokens that were used."""
        change = used - reservation.tokens
        if change:
            settle = partial(self._limiter.settle, tenant.id, "tokens", cell=reservation.cell)
            await self._tell(partial(settle, change=change))

    async def take_compile(self, tenant: Tenant) -> None:
        """Count a prompt that is to be compiled.

        Raises:
            LimitExceeded: the tenant may not have another one compiled yet.
        """
        limit = tenant.limits.compiles_per_minute
        if limit is None:
            return
        taken = await self._ask(partial(self._limiter.take, tenant.id, "compiles", limit=limit))
        if taken is not None and taken.cell is None:
            raise excess("compiles", limit, retry_after=taken.retry_seconds)

    async def renew_forever(self) -> None:
        """Say again and again which requests run here, until cancelled."""
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            leases: defaultdict[str, list[str]] = defaultdict(list)
            for lease, tenant in self._running.items():
                leases[tenant].append(lease)
            for tenant, held in leases.items():
                await self._tell(partial(self._limiter.renew, tenant, held))

    async def _ask(self, question: Callable[[], Awaitable[Reply]]) -> Reply | None:
        """Return the answer, or None where it is done without."""
        lost = StoreUnavailable("limits cannot be counted", retry_after=1.0)
        if self._clock() >= self._retry_at:
            try:
                return await question()
            except StoreUnavailable as error:
                lost = error
                self._retry_at = self._clock() + self._retry
        if not self._is_open:
            raise lost
        metrics.LIMITS_UNCHECKED.inc()
        return None

    async def _tell(self, saying: Callable[[], Awaitable[None]]) -> None:
        """Tell Redis; what it is not told of while it is away ends by itself."""
        if self._clock() < self._retry_at:
            return
        try:
            await saying()
        except StoreUnavailable:
            self._retry_at = self._clock() + self._retry
