"""The clocks without Redis: same contract, in this process's memory."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from loragen.clocks import EXPECTED_TOKENS, GENERATED_WEIGHT, MEMORY, Place, Work
from loragen.errors import StoreUnavailable
from loragen.limits import LEASE_SECONDS


@dataclass
class _Model:
    """What there is of one edge model."""

    now: int = 0
    clocks: dict[str, int] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    places: dict[str, tuple[Place, float]] = field(default_factory=dict)


class MemoryClocks:
    """Keeps clocks in dictionaries; `is_away` makes it fail like a lost Redis."""

    def __init__(
        self,
        *,
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models: defaultdict[str, _Model] = defaultdict(_Model)
        self._lease = lease_seconds
        self._clock = clock
        self.is_away = False

    async def start(self, tenant: str, model: str, request: str, work: Work) -> Place:
        """Give a request its place and charge its tenant what it will probably cost."""
        await self._reach()
        held = self._alive(model)
        held.now = max(held.now, min((p.tag for p, _ in held.places.values()), default=0))
        tag = max(held.now, held.clocks.get(tenant, 0))
        expected = min(work.generated_tokens, held.means.get(tenant, EXPECTED_TOKENS))
        charged = int(work.prompt_tokens + GENERATED_WEIGHT * expected)
        held.clocks[tenant] = tag + charged
        place = Place(tenant, model, request, tag, charged, held.now)
        held.places[request] = (place, self._clock() + self._lease)
        return place

    async def settle(self, place: Place, work: Work | None) -> None:
        """End a request and charge what it cost; where nobody knows, the guess stays."""
        await self._reach()
        held = self._models[place.model]
        if held.places.pop(place.request, None) is None:
            return
        change = 0 if work is None else work.cost - place.charged
        at = held.clocks[place.tenant] = max(0, held.clocks[place.tenant] + change)
        if work is not None and work.generated_tokens:
            mean = held.means.get(place.tenant, work.generated_tokens)
            mean += (work.generated_tokens - mean) / MEMORY
            held.means[place.tenant] = round(mean, 3)
        if not held.places:
            held.now = max(held.now, at)

    async def renew(self, places: Collection[Place]) -> None:
        """Say that requests still run or wait."""
        await self._reach()
        for place in places:
            held = self._models[place.model].places
            if place.request in held:
                held[place.request] = (place, self._clock() + self._lease)

    def _alive(self, model: str) -> _Model:
        held, now = self._models[model], self._clock()
        held.places = {name: each for name, each in held.places.items() if each[1] > now}
        return held

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do while Redis answers
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
