"""Erasure without Redis: what a tenant has in a store in this process's memory."""

from tests.fakes.memory_store import MemoryStore


class MemoryErasure:
    """Erases tasks and recipes."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def erase(self, tenant: str) -> int:
        """Delete all that is a tenant's but its record and its keys; return how much it was."""
        await self._store.ping()
        return self._store.erase(tenant)
