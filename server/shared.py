"""Shared: what all gateways of one installation have in common, in Redis."""

from dataclasses import dataclass
from typing import Self

from config.settings import Settings
from loragen.clocks import Clocks
from loragen.conversations import Conversations, RedisConversations
from loragen.erasure import Erasure, RedisErasure
from loragen.errors import ConfigError
from loragen.invalidations import Invalidations, RedisInvalidations
from loragen.leases import Leases, RedisLeases
from loragen.limits import Limiter
from loragen.names import Names
from loragen.pools import PoolStates, RedisPoolStates
from loragen.redis_client import connect
from loragen.redis_clocks import RedisClocks
from loragen.redis_limiter import RedisLimiter
from loragen.redis_names import RedisNames
from loragen.redis_store import RedisStore
from loragen.redis_tenants import RedisTenants
from loragen.seal import Seal
from loragen.secret_versions import parse_versions
from loragen.sightings import Budget, RedisSightings, Sightings
from loragen.store import Store
from loragen.tenants import Tenants
from loragen.upgrades import RedisUpgradeProgress, UpgradeProgress
from loragen.usage import RedisUsage, Usage


@dataclass(frozen=True, slots=True)
class Shared:
    """The shared state, in one namespace."""

    store: Store
    names: Names
    leases: Leases
    invalidations: Invalidations
    sightings: Sightings
    conversations: Conversations
    tenants: Tenants
    erasure: Erasure
    limiter: Limiter
    clocks: Clocks
    usage: Usage
    pools: PoolStates
    progress: UpgradeProgress

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return the state in the configured Redis; connections open at first use.

        Raises:
            ConfigError: no address of Redis is configured, or it is not one; or the encryption
                key is malformed.
        """
        if settings.redis_url is None:
            raise ConfigError("redis_url: set LORAGEN_REDIS_URL")
        options, auto = settings.store, settings.auto
        client = connect(
            settings.redis_url.get_secret_value(), timeout_seconds=options.timeout_seconds
        )
        store = RedisStore(
            client,
            namespace=options.namespace,
            recipe_ttl_seconds=options.recipe_ttl_seconds,
            implicit_ttl_seconds=auto.task_ttl_seconds,
            seal=_seal(settings),
        )
        sightings = RedisSightings(
            client,
            namespace=options.namespace,
            window_seconds=auto.window_seconds,
            budget=Budget(auto.compile_budget, auto.budget_seconds),
        )
        conversations = RedisConversations(
            client, namespace=options.namespace, ttl_seconds=auto.conversation_seconds
        )
        return cls(
            store=store,
            names=RedisNames(client, namespace=options.namespace, keep=options.name_versions),
            leases=RedisLeases(client, namespace=options.namespace),
            invalidations=RedisInvalidations(client, namespace=options.namespace),
            sightings=sightings,
            conversations=conversations,
            tenants=RedisTenants(client, namespace=options.namespace),
            erasure=RedisErasure(client, namespace=options.namespace),
            limiter=RedisLimiter(client, namespace=options.namespace),
            clocks=RedisClocks(client, namespace=options.namespace),
            usage=RedisUsage(
                client, namespace=options.namespace, keep_days=settings.usage.keep_days
            ),
            pools=RedisPoolStates(client, namespace=options.namespace),
            progress=RedisUpgradeProgress(client, namespace=options.namespace),
        )

    async def close(self) -> None:
        """Give back the connections, which all parts have in common."""
        await self.store.close()


def _seal(settings: Settings) -> Seal:
    key = settings.encryption_key
    if key is None:
        return Seal()
    return Seal(parse_versions(key.get_secret_value(), name="encryption_key"))
