"""Authentication: whose a request is, by the API key it bears.

A key that was good is remembered for a short time, so that most requests ask nobody; word of a
change, and where that is lost the time, ends it. While Redis is away remembered keys go on, and
others get a 503, as nobody knows them or not. A key that is not good is asked for every time, be
it unknown, revoked or expired: answers, and the time they take, do not tell these apart.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from loragen.api_key import PREFIX, ApiKey
from loragen.errors import StoreUnavailable, Unauthorized
from loragen.invalidations import WHOLE_TENANT, Invalidations
from loragen.limits import Limits
from loragen.tenants import OPEN_TENANT, Bearer, Tenant, Tenants

_SCHEME: Final = "bearer "
_NOBODY: Final = "0" * 64
"""The digest that an unknown key is compared with, for the sake of time."""


@dataclass(frozen=True, slots=True)
class _Known:
    bearer: Bearer
    fresh_until: float


class Authenticator:
    """Turns the `authorization` of requests into tenants."""

    def __init__(
        self,
        tenants: Tenants,
        *,
        is_open: bool,
        limits: Limits,
        entries: int,
        ttl_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember so many keys for so long; `is_open` makes whoever shows none the open tenant.

        `limits` are those of every tenant that has none of its own.
        """
        self._tenants = tenants
        self._limits = limits
        self._open = Tenant(id=OPEN_TENANT, created_at=0, limits=limits) if is_open else None
        self._capacity = entries
        self._ttl = ttl_seconds
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._seen: dict[str, Tenant] = {}
        self._asking: dict[str, asyncio.Task[Bearer | None]] = {}

    async def authenticate(self, authorization: str) -> Tenant:
        """Return the tenant of a request by its header, empty where it has none.

        Raises:
            Unauthorized: keys are asked for, and it shows none, or none that is good.
            StoreUnavailable: Redis is away and the key is not remembered.
        """
        shown = bearer_token(authorization)
        # Clients of the open tenant may show anything, as OpenAI's must show something; only
        # what looks like a key of ours is meant.
        if self._open is not None and not shown.startswith(PREFIX):
            return self._open
        if not shown:
            raise Unauthorized("no API key: send one as `Authorization: Bearer lg_...`")
        key = ApiKey.try_parse(shown)
        bearer = None if key is None else await self._find(key.id)
        digest = _NOBODY if bearer is None else bearer.key.digest
        is_key = key is not None and key.fits(digest)
        if bearer is None or not is_key or not bearer.key.is_valid(time.time()):
            raise Unauthorized("the API key is not valid")
        return bearer.tenant

    def tenant(self, tenant: str) -> Tenant:
        """Return a tenant as it was when a request of it was last let in."""
        return self._seen.get(tenant) or Tenant(id=tenant, created_at=0, limits=self._limits)

    def forget(self, tenant: str, task_id: str) -> None:
        """Forget the keys of a tenant that changed; changes of its tasks do not matter here."""
        if task_id == WHOLE_TENANT:
            for key_id in [k for k, known in self._known.items() if _owner(known) == tenant]:
                del self._known[key_id]
            self._asking.clear()  # what is asked for may be answered as it was before

    async def follow(self, invalidations: Invalidations) -> None:
        """Forget what is changed anywhere, until cancelled."""
        await invalidations.follow(self.forget, self._forget_all)

    def _forget_all(self) -> None:
        """Word of a change may have been missed: a key that was revoked must not go on."""
        self._known.clear()
        self._asking.clear()

    def _limited(self, bearer: Bearer | None) -> Bearer | None:
        if bearer is None:
            return None
        limits = bearer.tenant.limits.filled_from(self._limits)
        return replace(bearer, tenant=bearer.tenant.model_copy(update={"limits": limits}))

    async def _find(self, key_id: str) -> Bearer | None:
        known = self._known.get(key_id)
        if known is not None and self._clock() < known.fresh_until:
            self._known.move_to_end(key_id)
            return known.bearer
        asking = self._asking.get(key_id)
        if asking is None:  # however many requests show a key at once, it is asked for once
            asking = asyncio.create_task(self._ask(key_id, known))
            self._asking[key_id] = asking
            asking.add_done_callback(lambda done: self._asked(key_id, done))
        return await asyncio.shield(asking)

    def _asked(self, key_id: str, done: asyncio.Task[Bearer | None]) -> None:
        if self._asking.get(key_id) is done:
            del self._asking[key_id]
        if not done.cancelled():
            done.exception()  # read, or asyncio complains where nobody waits any more

    async def _ask(self, key_id: str, known: _Known | None) -> Bearer | None:
        asked = self._clock()
        try:
            bearer = self._limited(await self._tenants.find(key_id))
        except StoreUnavailable:
            if known is None:
                raise
            # For another time to live, so that not every request waits for a dead Redis.
            bearer, asked = known.bearer, self._clock()
        if self._asking.get(key_id) is not asyncio.current_task():
            return bearer  # something changed since it was asked
        self._known.pop(key_id, None)
        if bearer is not None and bearer.key.is_valid(time.time()):
            self._seen[bearer.tenant.id] = bearer.tenant
            self._known[key_id] = _Known(bearer, asked + self._ttl)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return bearer


def bearer_token(authorization: str) -> str:
    """Return what a header bears, empty where it is of another scheme or none."""
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        return ""
    return authorization[len(_SCHEME) :].strip()


def _owner(known: _Known) -> str:
    return known.bearer.tenant.id
