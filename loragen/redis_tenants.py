"""Tenants in Redis.

    {ns}:tenants           hash    tenant id -> record as JSON
    {ns}:key:{key id}      string  record as JSON, with the digest of the key
    {ns}:keys:{tenant}     set     ids of its keys

None has a time to live, so no eviction takes a key away.
"""

import logging
from typing import Final, TypeVar

import redis.asyncio as redis
from pydantic import BaseModel, ValidationError

from loragen import metrics
from loragen.api_key import KeyRecord
from loragen.errors import StoreUnavailable
from loragen.redis_client import as_bytes, mapped
from loragen.tenants import Bearer, Tenant

logger = logging.getLogger(__name__)

Record = TypeVar("Record", bound=BaseModel)
Named = TypeVar("Named", Tenant, KeyRecord)

_ADD_KEY: Final = """
local tenant, id, record = unpack(ARGV)
if redis.call('HEXISTS', KEYS[1], tenant) == 0 then return 0 end
redis.call('SET', KEYS[2], record)
redis.call('SADD', KEYS[3], id)
return 1
"""
_UPDATE: Final = """
local tenant, record = unpack(ARGV)
if redis.call('HEXISTS', KEYS[1], tenant) == 0 then return 0 end
redis.call('HSET', KEYS[1], tenant, record)
return 1
"""
_REVOKE: Final = """
local text = redis.call('GET', KEYS[1])
if not text then return 0 end
local record = cjson.decode(text)
if record.tenant ~= ARGV[1] then return 0 end
if not record.revoked_at then
  record.revoked_at = tonumber(ARGV[2])
  redis.call('SET', KEYS[1], cjson.encode(record))
end
return 1
"""
_DELETE: Final = """
local tenant, prefix = unpack(ARGV)
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do redis.call('DEL', prefix .. id) end
redis.call('DEL', KEYS[2])
return redis.call('HDEL', KEYS[1], tenant)
"""


class RedisTenants:
    """Tenants on Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis = client
        self._namespace = namespace
        self._tenants = f"{namespace}:tenants"
        self._add_key = client.register_script(_ADD_KEY)
        self._revoke = client.register_script(_REVOKE)
        self._update = client.register_script(_UPDATE)
        self._delete = client.register_script(_DELETE)

    async def create(self, tenant: Tenant) -> bool:
        """Write a new tenant; False, and nothing written, if there is one of that id."""
        record = tenant.model_dump_json()
        async with mapped():
            return bool(await self._redis.hsetnx(self._tenants, tenant.id, record))

    async def get(self, tenant: str) -> Tenant | None:
        """Return a tenant."""
        async with mapped():
            text = await self._redis.hget(self._tenants, tenant)
        return None if text is None else _own(_parsed(Tenant, text), tenant)

    async def all(self) -> list[Tenant]:
        """Return every tenant, by id."""
        async with mapped():
            texts = await self._redis.hvals(self._tenants)
        return sorted((_parsed(Tenant, text) for text in texts), key=lambda tenant: tenant.id)

    async def update(self, tenant: Tenant) -> bool:
        """Replace the record of a tenant; False, and nothing written, if it does not exist."""
        async with mapped():
            updated = await self._update(
                keys=[self._tenants], args=[tenant.id, tenant.model_dump_json()]
            )
        return bool(updated)

    async def delete(self, tenant: str) -> bool:
        """Delete a tenant and its keys, nothing else that it owns; False if there was none."""
        async with mapped():
            deleted = await self._delete(
                keys=[self._tenants, self._keys(tenant)], args=[tenant, self._key("")]
            )
        return bool(deleted)

    async def add_key(self, record: KeyRecord) -> bool:
        """Write a new key; False, and nothing written, if its tenant does not exist."""
        text = record.model_dump_json(exclude_none=True)
        async with mapped():
            added = await self._add_key(
                keys=[self._tenants, self._key(record.id), self._keys(record.tenant)],
                args=[record.tenant, record.id, text],
            )
        return bool(added)

    async def keys(self, tenant: str) -> list[KeyRecord]:
        """Return a tenant's keys, revoked ones too, oldest first."""
        async with mapped():
            ids = await self._redis.smembers(self._keys(tenant))
            names = [self._key(as_bytes(key_id).decode()) for key_id in ids]
            texts = await self._redis.mget(names) if names else []
        records = [_parsed(KeyRecord, text) for text in texts if text is not None]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def find(self, key_id: str) -> Bearer | None:
        """Return what is known under the id of a key."""
        async with mapped():
            text = await self._redis.get(self._key(key_id))
        if text is None:
            return None
        record = _own(_parsed(KeyRecord, text), key_id)
        tenant = await self.get(record.tenant)
        return None if tenant is None else Bearer(record, tenant)

    async def revoke(self, tenant: str, key_id: str, *, now: int) -> bool:
        """Revoke a key at a time in Unix seconds; False if the tenant has none of that id."""
        async with mapped():
            return bool(await self._revoke(keys=[self._key(key_id)], args=[tenant, now]))

    def _key(self, key_id: str) -> str:
        return f"{self._namespace}:key:{key_id}"

    def _keys(self, tenant: str) -> str:
        return f"{self._namespace}:keys:{tenant}"


def _own(record: Named, wanted: str) -> Named:
    """Return a record that is the one that was asked for.

    Raises:
        StoreUnavailable: it is another's.
    """
    if record.id != wanted:
        metrics.MISDIRECTED.labels("store").inc()
        logger.error("the store's reply is to another request")
        raise StoreUnavailable("the task store gave another tenant or key", retry_after=1.0)
    return record


def _parsed(kind: type[Record], text: bytes | str) -> Record:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise StoreUnavailable("a stored tenant or key cannot be read") from error
