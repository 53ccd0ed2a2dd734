"""Visit: one request of a tenant, from the entrance to its last byte."""

import asyncio
from typing import Final

from starlette.types import Message, Send

from loragen.clocks import Place
from loragen.errors import InvalidRequest, LimitExceeded
from loragen.limits import Level, excess
from loragen.task import Task
from loragen.tenants import Tenant
from server.gatekeeper import Entry, Gatekeeper, Reservation
from server.tally import Estimate, Tally

_HEADERS: Final = ("limit", "remaining", "reset")


class Visit:
    """Counts a request against its tenant's limits and says in its answer how full they are."""

    def __init__(self, tenant: Tenant, gatekeeper: Gatekeeper, entry: Entry) -> None:
        self.tenant = tenant
        self.tally = Tally()
        self.place: Place | None = None
        """Among the requests of its edge model, while it waits or runs."""
        self.live: tuple[Task, str] | None = None
        """What was asked of which task, where that may measure its recipe."""
        self._gatekeeper = gatekeeper
        self._lease = entry.lease
        self._admission = entry.admission
        self._tokens = entry.admission.tokens
        self._reserving: asyncio.Task[Reservation | None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    @classmethod
    async def begin(cls, tenant: Tenant, gatekeeper: Gatekeeper) -> "Visit":
        """Return the visit of a request that comes; one that is `refused` must not go on.

        Raises:
            StoreUnavailable: Redis is away, and requests are to be refused then.
        """
        return cls(tenant, gatekeeper, await gatekeeper.admit(tenant))

    @property
    def refused(self) -> LimitExceeded | None:
        """Why the request must not go on, if it must not."""
        limits, by = self.tenant.limits, self._admission.refused_by
        most = limits.requests_per_minute if by == "requests" else limits.concurrent_requests
        if by is None or most is None:
            return None
        return excess(by, most, retry_after=self._admission.retry_seconds)

    async def reserve(self, estimate: Estimate) -> None:
        """Take the tokens that the request may need.

        Raises:
            LimitExceeded: the tenant has not so many left at the moment.
            InvalidRequest: it never has.
            StoreUnavailable: Redis is away, and requests are to be refused then.
        """
        self.tally.expect(estimate.prompt_tokens)
        limit = self.tenant.limits.tokens_per_minute
        if limit is None:
            return
        tokens = estimate.total
        if tokens > limit and estimate.is_open_ended:
            tokens = limit  # it asks for what there is
        if tokens > limit:
            raise InvalidRequest(
                f"the request may take {tokens} tokens, and its tenant has {limit} a minute: "
                "lower max_tokens",
                param="max_tokens",
            )
        # Apart from the request, and awaited as it leaves: where it ends meanwhile, Redis may have
        # counted all the same.
        self._reserving = asyncio.create_task(self._gatekeeper.reserve(self.tenant, tokens))
        reservation = await asyncio.shield(self._reserving)
        if reservation is not None:
            self._tokens = reservation.level

    async def leave(self) -> None:
        """Give back what the request held and did not use, once; whoever waits may be cancelled."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        try:
            reservation = await self._reserved()
            if reservation is not None and self.tally.is_known:
                used = self.tally.prompt_tokens + self.tally.generated_tokens
                await self._gatekeeper.settle(self.tenant, reservation, used=used)
        finally:
            if self._lease is not None:
                await self._gatekeeper.leave(self.tenant, self._lease)

    async def _reserved(self) -> Reservation | None:
        """Return what the request took, as soon as that is known; nothing if it was refused."""
        if self._reserving is None:
            return None
        await asyncio.wait([self._reserving])
        failed = self._reserving.cancelled() or self._reserving.exception() is not None
        return None if failed else self._reserving.result()

    def sending(self, send: Send) -> Send:
        """Return how the answer is sent: with the limits in its headers.

        The visit ends before the last byte leaves, so that a client who has it finds its place
        free.
        """

        async def send_and_leave(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).extend(self._headers())
            elif not message.get("more_body", False):
                await self.leave()
            await send(message)

        return send_and_leave

    def _headers(self) -> list[tuple[bytes, bytes]]:
        limits = self.tenant.limits
        return [
            *_level_headers("requests", limits.requests_per_minute, self._admission.requests),
            *_level_headers("tokens", limits.tokens_per_minute, self._tokens),
        ]


def _level_headers(what: str, limit: int | None, level: Level | None) -> list[tuple[bytes, bytes]]:
    if limit is None or level is None:
        return []
    values = (str(limit), str(level.remaining), f"{level.reset_seconds:.3f}s")
    return [
        (f"x-ratelimit-{name}-{what}".encode(), value.encode())
        for name, value in zip(_HEADERS, values, strict=True)
    ]
