"""What authentication and the admin API rely on. A subclass gives the fixture `tenants`."""

import asyncio

from loragen.api_key import ApiKey, KeyRecord
from loragen.tenants import Bearer, Tenant, Tenants

ACME = Tenant(id="acme", created_at=1_000)
GLOBEX = Tenant(id="globex", created_at=900)


def record_of(key: ApiKey, tenant: Tenant = ACME, *, created_at: int = 2_000) -> KeyRecord:
    """Return what is kept of a key."""
    return KeyRecord(id=key.id, tenant=tenant.id, digest=key.digest, created_at=created_at)


class TenantsContract:
    """The checks."""

    async def test_a_tenant_is_made_once_and_read_back(self, tenants: Tenants) -> None:
        assert await tenants.get("acme") is None
        assert await tenants.create(ACME)
        assert not await tenants.create(ACME.model_copy(update={"created_at": 5}))
        assert await tenants.create(GLOBEX)
        assert await tenants.get("acme") == ACME
        assert await tenants.all() == [ACME, GLOBEX]

    async def test_of_concurrent_creations_one_wins(self, tenants: Tenants) -> None:
        made = await asyncio.gather(*(tenants.create(ACME) for _ in range(20)))
        assert made.count(True) == 1

    async def test_a_changed_record_is_read_back_and_none_is_made(self, tenants: Tenants) -> None:
        changed = ACME.model_copy(update={"force_prompt": True})
        assert not await tenants.update(changed)
        assert await tenants.get("acme") is None
        await tenants.create(ACME)
        assert await tenants.update(changed)
        assert await tenants.get("acme") == changed

    async def test_a_key_leads_to_its_tenant(self, tenants: Tenants) -> None:
        await tenants.create(ACME)
        record = record_of(ApiKey.make())
        assert await tenants.find(record.id) is None
        assert await tenants.add_key(record)
        assert await tenants.find(record.id) == Bearer(record, ACME)

    async def test_without_a_tenant_there_is_no_key(self, tenants: Tenants) -> None:
        record = record_of(ApiKey.make())
        assert not await tenants.add_key(record)
        assert await tenants.find(record.id) is None
        assert await tenants.keys("acme") == []

    async def test_keys_are_listed_oldest_first_and_per_tenant(self, tenants: Tenants) -> None:
        await tenants.create(ACME)
        await tenants.create(GLOBEX)
        young, old = (record_of(ApiKey.make(), created_at=at) for at in (30, 10))
        other = record_of(ApiKey.make(), GLOBEX)
        for record in (young, old, other):
            assert await tenants.add_key(record)
        assert await tenants.keys("acme") == [old, young]
        assert await tenants.keys("globex") == [other]

    async def test_a_revoked_key_says_since_when(self, tenants: Tenants) -> None:
        await tenants.create(ACME)
        record = record_of(ApiKey.make()).model_copy(update={"expires_at": 9_000})
        await tenants.add_key(record)
        assert await tenants.revoke("acme", record.id, now=3_000)
        assert await tenants.revoke("acme", record.id, now=4_000)
        revoked = record.model_copy(update={"revoked_at": 3_000})
        assert await tenants.find(record.id) == Bearer(revoked, ACME)
        assert await tenants.keys("acme") == [revoked]

    async def test_only_its_owner_revokes_a_key(self, tenants: Tenants) -> None:
        await tenants.create(ACME)
        record = record_of(ApiKey.make())
        await tenants.add_key(record)
        assert not await tenants.revoke("globex", record.id, now=3_000)
        assert not await tenants.revoke("acme", ApiKey.make().id, now=3_000)
        assert await tenants.find(record.id) == Bearer(record, ACME)

    async def test_a_deleted_tenant_takes_its_keys_along_and_no_others(
        self, tenants: Tenants
    ) -> None:
        await tenants.create(ACME)
        await tenants.create(GLOBEX)
        mine = [record_of(ApiKey.make()) for _ in range(3)]
        other = record_of(ApiKey.make(), GLOBEX)
        for record in (*mine, other):
            await tenants.add_key(record)
        assert await tenants.delete("acme")
        assert not await tenants.delete("acme")
        assert [await tenants.find(record.id) for record in mine] == [None] * 3
        assert await tenants.keys("acme") == []
        assert await tenants.find(other.id) == Bearer(other, GLOBEX)
        assert await tenants.all() == [GLOBEX]
