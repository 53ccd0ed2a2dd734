"""The state that gateways share, without Redis but for what is given."""

from dataclasses import replace
from typing import Any

from loragen.erasure import Erasure, RedisErasure
from loragen.names import Names
from loragen.redis_names import RedisNames
from loragen.redis_store import RedisStore
from loragen.sightings import Budget
from loragen.store import Store
from loragen.usage import RedisUsage, Usage
from server.shared import Shared
from tests.fakes.memory_clocks import MemoryClocks
from tests.fakes.memory_conversations import MemoryConversations
from tests.fakes.memory_erasure import MemoryErasure
from tests.fakes.memory_invalidations import MemoryInvalidations
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.memory_limiter import MemoryLimiter
from tests.fakes.memory_names import MemoryNames
from tests.fakes.memory_pools import MemoryPoolStates
from tests.fakes.memory_progress import MemoryUpgradeProgress
from tests.fakes.memory_sightings import MemorySightings
from tests.fakes.memory_store import MemoryStore
from tests.fakes.memory_tenants import MemoryTenants
from tests.fakes.memory_usage import MemoryUsage


def shared_state(store: Store, **parts: Any) -> Shared:
    """Return the shared state with this store, its names and these parts; the others are fakes."""
    names: Names
    erasure: Erasure
    usage: Usage
    tenants = MemoryTenants()
    if isinstance(store, RedisStore):
        names = RedisNames(store._redis, namespace=store._namespace, keep=5)
        erasure = RedisErasure(store._redis, namespace=store._namespace)
        usage = RedisUsage(store._redis, namespace=store._namespace, keep_days=400)
    else:
        assert isinstance(store, MemoryStore)
        names = MemoryNames(store)
        erasure = MemoryErasure(store)
        usage = MemoryUsage(store, tenants)
    fakes = Shared(
        store=store,
        names=names,
        leases=MemoryLeases(),
        invalidations=MemoryInvalidations(),
        sightings=MemorySightings(budget=Budget(tasks=60, seconds=3600)),
        conversations=MemoryConversations(),
        tenants=tenants,
        erasure=erasure,
        limiter=MemoryLimiter(),
        clocks=MemoryClocks(),
        usage=usage,
        pools=MemoryPoolStates(),
        progress=MemoryUpgradeProgress(),
    )
    return replace(fakes, **parts)
