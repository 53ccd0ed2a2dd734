"""Tenants and keys keep one contract, with Redis and without."""

from collections.abc import AsyncIterator

import pytest

from loragen.api_key import ApiKey
from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from loragen.redis_tenants import RedisTenants
from tests.contract.tenants_contract import ACME, TenantsContract, record_of
from tests.fakes.memory_tenants import MemoryTenants
from tests.fakes.valkey import Valkey


class TestMemoryTenants(TenantsContract):
    """The fake."""

    @pytest.fixture
    def tenants(self) -> MemoryTenants:
        return MemoryTenants()


@pytest.mark.redis
class TestRedisTenants(TenantsContract):
    """The real ones."""

    @pytest.fixture
    async def tenants(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisTenants]:
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisTenants(client, namespace=namespace)
        await client.aclose()

    async def test_neither_a_key_nor_its_secret_part_is_anywhere_and_nothing_expires(
        self, tenants: RedisTenants, valkey: Valkey, namespace: str
    ) -> None:
        await tenants.create(ACME)
        key = ApiKey.make()
        await tenants.add_key(record_of(key))
        await tenants.revoke("acme", key.id, now=1)
        client = valkey.client
        names = [bytes(name) for name in client.scan_iter(f"{namespace}:*")]
        assert len(names) == 3
        assert {client.ttl(name) for name in names} == {-1}
        values = [
            *names,
            bytes(str(client.hgetall(f"{namespace}:tenants")), "utf-8"),
            bytes(str(client.smembers(f"{namespace}:keys:acme")), "utf-8"),
            bytes(str(client.get(f"{namespace}:key:{key.id}")), "utf-8"),
        ]
        assert any(key.id.encode() in value for value in values)
        secret = key.text.rpartition("_")[2].encode()
        assert not any(secret in value for value in values)

    async def test_the_record_of_another_is_no_way_in(
        self, tenants: RedisTenants, valkey: Valkey, namespace: str
    ) -> None:
        await tenants.create(ACME)
        await tenants.create(ACME.model_copy(update={"id": "globex"}))
        own, other = record_of(ApiKey.make()), record_of(ApiKey.make())
        for record in (own, other):
            await tenants.add_key(record)
        valkey.client.copy(f"{namespace}:key:{other.id}", f"{namespace}:key:{own.id}", replace=True)
        with pytest.raises(StoreUnavailable, match="another"):
            await tenants.find(own.id)
        foreign = ACME.model_copy(update={"id": "globex"}).model_dump_json()
        valkey.client.hset(f"{namespace}:tenants", "acme", foreign)
        with pytest.raises(StoreUnavailable, match="another"):
            await tenants.get("acme")
        with pytest.raises(StoreUnavailable, match="another"):
            await tenants.find(other.id)

    async def test_a_damaged_record_is_no_way_in(
        self, tenants: RedisTenants, valkey: Valkey, namespace: str
    ) -> None:
        await tenants.create(ACME)
        record = record_of(ApiKey.make())
        await tenants.add_key(record)
        valkey.client.set(f"{namespace}:key:{record.id}", "{}")
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await tenants.find(record.id)

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        away = RedisTenants(client, namespace="x")
        for call in (
            away.create(ACME),
            away.get("acme"),
            away.all(),
            away.update(ACME),
            away.delete("acme"),
            away.add_key(record_of(ApiKey.make())),
            away.keys("acme"),
            away.find("x"),
            away.revoke("acme", "x", now=1),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await client.aclose()
