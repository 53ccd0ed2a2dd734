"""Tenants: who owns API keys, limits and tasks; `redis_tenants` keeps them in Redis."""

from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field

from loragen.api_key import KeyRecord
from loragen.limits import Limits

OPEN_TENANT: Final = "default"
"""Whose everything is while no key is asked for."""

# Part of Redis keys: neither their separator nor a character of their patterns.
TenantId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Tenant(BaseModel):
    """A tenant; `created_at` in Unix seconds."""

    model_config = ConfigDict(frozen=True)

    id: TenantId
    created_at: int
    force_prompt: bool = False
    """Serve its tasks in prompt mode although they have recipes."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Bearer:
    """A key as it is recorded, and whose it is."""

    key: KeyRecord
    tenant: Tenant


class Tenants(Protocol):
    """Where tenants and their keys live. Every method raises StoreUnavailable."""

    async def create(self, tenant: Tenant) -> bool:
        """Write a new tenant; False, and nothing written, if there is one of that id."""

    async def get(self, tenant: str) -> Tenant | None:
        """Return a tenant."""

    async def all(self) -> list[Tenant]:
        """Return every tenant, by id."""

    async def update(self, tenant: Tenant) -> bool:
        """Replace the record of a tenant; False, and nothing written, if it does not exist."""

    async def delete(self, tenant: str) -> bool:
        """Delete a tenant and its keys, nothing else that it owns; False if there was none."""

    async def add_key(self, record: KeyRecord) -> bool:
        """Write a new key; False, and nothing written, if its tenant does not exist."""

    async def keys(self, tenant: str) -> list[KeyRecord]:
        """Return a tenant's keys, revoked ones too, oldest first."""

    async def find(self, key_id: str) -> Bearer | None:
        """Return what is known under the id of a key."""

    async def revoke(self, tenant: str, key_id: str, *, now: int) -> bool:
        """Revoke a key at a time in Unix seconds; False if the tenant has none of that id.

        One that is revoked already stays so since then.
        """
