"""Usage meter: counts what was served beside the answers, and writes it down every second.

Counting is an addition in memory, after the last byte. What is not written yet is kept, up to a
bound, while Redis is away; beyond it, and where a gateway ends meanwhile, the metric
`loragen_usage_lost_total` says how many requests are missing. A gateway that is killed loses what
it has counted since it last wrote, a second as a rule.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final
from uuid import uuid4

from loragen import metrics
from loragen.errors import StoreUnavailable
from loragen.usage import Numbers, Usage, UsageKey
from server.visit import Visit

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 1.0
MAX_ENTRIES: Final = 10_000
"""Different tenants, tasks and modes that wait to be written; as many again may be on their way."""
_BATCH: Final = 500
"""Entries in one script: a millisecond or two of Redis."""


def today() -> date:
    """Return the day of UTC."""
    return datetime.now(UTC).date()


class UsageMeter:
    """Counts the requests of this gateway."""

    def __init__(
        self,
        usage: Usage,
        *,
        max_entries: int = MAX_ENTRIES,
        day: Callable[[], date] = today,
    ) -> None:
        self._usage = usage
        self._max_entries = max_entries
        self._day = day
        self._counted: dict[UsageKey, Numbers] = {}
        self._batches: deque[tuple[str, Mapping[UsageKey, Numbers]]] = deque()
        self._flushing = asyncio.Lock()

    def count(self, visit: Visit) -> None:
        """Count a request that has ended, if a worker served it."""
        served, tally = visit.tally.served, visit.tally
        if served is None:
            return
        model, provenance = served
        key = UsageKey(visit.tenant.id, self._day(), model, provenance.mode, provenance.task_id)
        if key not in self._counted and len(self._counted) >= self._max_entries:
            metrics.USAGE_LOST.inc()
            return
        numbers = Numbers(
            requests=1,
            prompt_tokens=tally.prompt_tokens,
            saved_prompt_tokens=provenance.saved_prompt_tokens,
            generated_tokens=tally.generated_tokens,
        )
        self._counted[key] = self._counted.get(key, Numbers()) + numbers

    async def flush(self) -> bool:
        """Write down what was counted; False where Redis is away and it waits."""
        async with self._flushing:
            if not self._batches:
                items, self._counted = list(self._counted.items()), {}
                self._batches.extend(
                    (uuid4().hex, dict(items[start : start + _BATCH]))
                    for start in range(0, len(items), _BATCH)
                )
            try:
                while self._batches:
                    await self._usage.add(*self._batches[0])
                    self._batches.popleft()
            except StoreUnavailable:
                return False
        return True

    async def flush_forever(self) -> None:
        """Write down what was counted, again and again, until cancelled; daily drop old days."""
        dropped: date | None = None
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if await self.flush() and dropped != (now := self._day()):
                with suppress(StoreUnavailable):  # the next time, then
                    await self._usage.drop_old(now)
                    dropped = now

    async def close(self) -> None:
        """Write down the rest, or say how much is lost."""
        while await self.flush() and self._counted:
            pass
        waiting = [*self._counted.values(), *(n for _, b in self._batches for n in b.values())]
        lost = sum(numbers.requests for numbers in waiting)
        if lost:
            metrics.USAGE_LOST.inc(lost)
            logger.error("usage lost", extra={"requests": lost})
