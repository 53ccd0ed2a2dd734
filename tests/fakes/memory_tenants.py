"""Tenants without Redis: same contract, in this process's memory."""

import asyncio

from loragen.api_key import KeyRecord
from loragen.errors import StoreUnavailable
from loragen.tenants import Bearer, Tenant


class MemoryTenants:
    """Keeps tenants and keys in dictionaries; `is_away` makes it fail like a lost Redis."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[str, KeyRecord] = {}
        self.is_away = False
        self.finds = 0
        """Times that a key was asked for."""

    async def create(self, tenant: Tenant) -> bool:
        """Write a new tenant; False, and nothing written, if there is one of that id."""
        await self._reach()
        if tenant.id in self._tenants:
            return False
        self._tenants[tenant.id] = tenant
        return True

    async def get(self, tenant: str) -> Tenant | None:
        """Return a tenant."""
        await self._reach()
        return self._tenants.get(tenant)

    async def all(self) -> list[Tenant]:
        """Return every tenant, by id."""
        await self._reach()
        return [self._tenants[tenant] for tenant in sorted(self._tenants)]

    async def update(self, tenant: Tenant) -> bool:
        """Replace the record of a tenant; False, and nothing written, if it does not exist."""
        await self._reach()
        if tenant.id not in self._tenants:
            return False
        self._tenants[tenant.id] = tenant
        return True

    async def delete(self, tenant: str) -> bool:
        """Delete a tenant and its keys, nothing else that it owns; False if there was none."""
        await self._reach()
        self._keys = {key: record for key, record in self._keys.items() if record.tenant != tenant}
        return self._tenants.pop(tenant, None) is not None

    async def add_key(self, record: KeyRecord) -> bool:
        """Write a new key; False, and nothing written, if its tenant does not exist."""
        await self._reach()
        if record.tenant not in self._tenants:
            return False
        self._keys[record.id] = record
        return True

    async def keys(self, tenant: str) -> list[KeyRecord]:
        """Return a tenant's keys, revoked ones too, oldest first."""
        await self._reach()
        own = [record for record in self._keys.values() if record.tenant == tenant]
        return sorted(own, key=lambda record: (record.created_at, record.id))

    async def find(self, key_id: str) -> Bearer | None:
        """Return what is known under the id of a key."""
        self.finds += 1
        await self._reach()
        record = self._keys.get(key_id)
        return None if record is None else Bearer(record, self._tenants[record.tenant])

    async def revoke(self, tenant: str, key_id: str, *, now: int) -> bool:
        """Revoke a key at a time in Unix seconds; False if the tenant has none of that id."""
        await self._reach()
        record = self._keys.get(key_id)
        if record is None or record.tenant != tenant:
            return False
        if record.revoked_at is None:
            self._keys[key_id] = record.model_copy(update={"revoked_at": now})
        return True

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # others run meanwhile, as they do while Redis answers
        if self.is_away:
            raise StoreUnavailable("the task store does not answer", retry_after=1.0)
