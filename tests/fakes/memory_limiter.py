"""The limiter without Redis: same contract, in this process's memory."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

from loragen.errors import StoreUnavailable
from loragen.limits import LEASE_SECONDS, WINDOW_SECONDS, Admission, Level, Limits, Taken, Window

Cells = dict[int, int]


class MemoryLimiter:
    """Counts in dictionaries; `is_away` makes it fail like a lost Redis."""

    def __init__(
        self,
        *,
        window_seconds: int = WINDOW_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cells: defaultdict[tuple[str, Window], Cells] = defaultdict(dict)
        self._running: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._window = window_seconds
        self._lease = lease_seconds
        self._clock = clock
        self.is_away = False

    async def admit(self, tenant: str, limits: Limits, lease: str) -> Admission:
        """Count a request that comes, unless a limit refuses it, and hold a lease while it runs."""
        await self._reach()
        running = self._alive(tenant)
        requests, concurrent = limits.requests_per_minute, limits.concurrent_requests
        if concurrent is not None and len(running) >= concurrent:
            refused = Admission(None, None, "concurrency", 1.0)
        else:
            refused = None
        if requests is not None:
            cells = self._current(tenant, "requests")
            if sum(cells.values()) + 1 > requests:
                refused = Admission(None, None, "requests", self._retry(cells, requests, 1))
            elif refused is None:
                self._add(tenant, "requests", 1)
        if refused is None and concurrent is not None:
            running[lease] = self._clock() + self._lease
        tokens = limits.tokens_per_minute
        return Admission(
            requests=None if requests is None else self._level(tenant, "requests", requests),
            tokens=None if tokens is None else self._level(tenant, "tokens", tokens),
            refused_by=None if refused is None else refused.refused_by,
            retry_seconds=0.0 if refused is None else refused.retry_seconds,
        )

    async def renew(self, tenant: str, leases: list[str]) -> None:
        """Say that requests still run; one that has ended stays so."""
        await self._reach()
        until = self._clock() + self._lease
        running = self._running[tenant]
        running.update((lease, until) for lease in leases if lease in running)

    async def leave(self, tenant: str, lease: str) -> None:
        """Say that a request has ended; one that is not running has."""
        await self._reach()
        self._running[tenant].pop(lease, None)

    async def take(self, tenant: str, window: Window, *, limit: int, amount: int = 1) -> Taken:
        """Take from a window as much as is asked for, or nothing."""
        await self._reach()
        cells = self._current(tenant, window)
        if sum(cells.values()) + amount > limit:
            retry = self._retry(cells, limit, amount)
            return Taken(self._level(tenant, window, limit), None, retry)
        self._add(tenant, window, amount)
        return Taken(self._level(tenant, window, limit), int(self._clock()))

    async def settle(self, tenant: str, window: Window, *, cell: int, change: int) -> None:
        """Change what was taken by what it turned out to be; a cell that has ended stays so."""
        await self._reach()
        cells = self._cells[tenant, window]
        if cell in cells:
            cells[cell] += change
            if cells[cell] <= 0:
                del cells[cell]

    def _alive(self, tenant: str) -> dict[str, float]:
        now = self._clock()
        kept = {lease: until for lease, until in self._running[tenant].items() if until > now}
        self._running[tenant] = kept
        return kept

    def _current(self, tenant: str, window: Window) -> Cells:
        oldest = int(self._clock()) - self._window
        kept = {at: n for at, n in self._cells[tenant, window].items() if at >= oldest}
        self._cells[tenant, window] = kept
        return kept

    def _add(self, tenant: str, window: Window, amount: int) -> None:
        cells, second = self._cells[tenant, window], int(self._clock())
        cells[second] = cells.get(second, 0) + amount

    def _retry(self, cells: Cells, limit: int, amount: int) -> float:
        over = sum(cells.values()) + amount - limit
        for at in sorted(cells):
            over -= cells[at]
            if over <= 0:
                return self._left(at)
        return float(self._window)

    def _left(self, at: int) -> float:
        return at + self._window + 1 - self._clock()

    def _level(self, tenant: str, window: Window, limit: int) -> Level:
        cells = self._current(tenant, window)
        reset = self._left(max(cells)) if cells else 0.0
        return Level(max(0, limit - sum(cells.values())), reset)

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do while Redis answers
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
