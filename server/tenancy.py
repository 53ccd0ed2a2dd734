"""Tenancy: changes of tenants and keys, and how they reach every gateway."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import date
from typing import Any

from loragen.errors import NotFound, Overloaded, StoreUnavailable
from loragen.invalidations import WHOLE_TENANT
from loragen.leases import LEASE_SECONDS, hold
from loragen.tenants import Tenant, Tenants
from server.shared import Shared
from server.usage import usage_rows

logger = logging.getLogger(__name__)


class Tenancy:
    """What the admin API does."""

    def __init__(self, shared: Shared, *, memory_seconds: float) -> None:
        """Take how long gateways remember a key at most."""
        self._shared = shared
        self._memory_seconds = memory_seconds

    @property
    def tenants(self) -> Tenants:
        """The tenants and their keys."""
        return self._shared.tenants

    async def get(self, tenant: str) -> Tenant:
        """Return a tenant.

        Raises:
            NotFound: there is none of that id.
        """
        found = await self.tenants.get(tenant)
        if found is None:
            raise NotFound(f"no tenant {tenant!r}", param="tenant")
        return found

    async def change(self, tenant: str, fields: Mapping[str, Any]) -> Tenant:
        """Change some fields of a tenant, and some of its limits, and return it.

        Raises:
            NotFound: there is none of that id.
            Overloaded: others change it for longer than a dead gateway would.
        """
        # One after the other over all gateways: of two at once the later would undo the other.
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(2 * LEASE_SECONDS):
                    await held.enter_async_context(hold(self._shared.leases, f"tenant:{tenant}"))
            except TimeoutError:
                raise Overloaded(f"tenant {tenant!r} is being changed", retry_after=1.0) from None
            known = await self.get(tenant)
            limits = known.limits.model_copy(update=fields.get("limits", {}))
            changed = known.model_copy(update={**fields, "limits": limits})
            if not await self.tenants.update(changed):
                raise NotFound(f"no tenant {tenant!r}", param="tenant")
        await self._tell(tenant)
        return changed

    async def revoke(self, tenant: str, key_id: str) -> None:
        """Revoke a key.

        Raises:
            NotFound: the tenant has none of that id.
        """
        if not await self.tenants.revoke(tenant, key_id, now=int(time.time())):
            raise NotFound(f"tenant {tenant!r} has no key {key_id!r}", param="key")
        await self._tell(tenant)

    async def remove(self, tenant: str) -> None:
        """Delete a tenant and all that is its.

        Its keys go first. What gateways still let in is over once they have forgotten them, so
        what is there is erased twice. A request that was under way for longer may leave something
        yet: deleting the tenant once more erases that too.

        Raises:
            NotFound: there is neither such a tenant nor anything of it.
        """
        existed = await self.tenants.delete(tenant)
        await self._tell(tenant)
        erased = await self._shared.erasure.erase(tenant)
        if not existed and not erased:
            raise NotFound(f"no tenant {tenant!r}", param="tenant")
        await asyncio.sleep(self._memory_seconds)
        await self._shared.erasure.erase(tenant)

    async def usage_lines(
        self, tenants: Sequence[str], *, since: date, until: date
    ) -> AsyncIterator[bytes]:
        """Yield the usage of tenants from one day to another as lines of JSON."""
        for tenant in tenants:
            found = await self._shared.usage.read(tenant, since=since, until=until)
            for row in usage_rows(found):
                yield json.dumps({"tenant": tenant, **row}).encode() + b"\n"

    async def _tell(self, tenant: str) -> None:
        try:
            await self._shared.invalidations.publish(tenant, WHOLE_TENANT)
        except StoreUnavailable:  # gateways forget by themselves
            logger.warning("invalidation not sent", extra={"tenant": tenant})
