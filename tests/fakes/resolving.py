"""A resolver over fakes, with a clock of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import REGISTRY

from loragen.keys import TenantKeys
from loragen.task import Task
from server.compiler import Compiler
from server.crew import Crew, Limits
from server.generator import Generator
from server.memory import MemoryTier, Resolved
from server.pools import Pools
from server.recipe_tier import RecipeTier
from server.resolve import Resolver
from tests.contract.store_contract import TENANT, task_of
from tests.fakes.memory_invalidations import MemoryInvalidations
from tests.fakes.memory_leases import MemoryLeases
from tests.fakes.memory_store import MemoryStore
from tests.fakes.shared_state import shared_state
from tests.fakes.stub_generator import StubGenerator

TTL = 2.0


@dataclass
class Bench:
    """A resolver over fakes, with a clock of its own."""

    store: MemoryStore = field(default_factory=MemoryStore)
    leases: MemoryLeases = field(default_factory=MemoryLeases)
    invalidations: MemoryInvalidations = field(default_factory=MemoryInvalidations)
    generator: StubGenerator = field(default_factory=StubGenerator)
    has_generator: bool = True
    timeout: float = 5.0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.task = task_of(0)
        generators: dict[str, Generator] = {"demo": self.generator} if self.has_generator else {}
        memory = MemoryTier(entries=100, max_bytes=1 << 20, ttl_seconds=TTL, clock=lambda: self.now)
        shared = shared_state(self.store, leases=self.leases, invalidations=self.invalidations)
        self.recipes = RecipeTier(self.store, lambda tenant: TenantKeys((bytes(32),), tenant))
        self.crew = Crew("demo", (), Limits(1, 0, 1.0))
        self.states = shared.pools
        self.pools = Pools({"demo": self.crew}, self.states, lambda _: None)
        self.compiler = Compiler(
            generators,
            shared,
            memory,
            self.recipes,
            self.pools,
            timeout_seconds=self.timeout,
            at_once=64,
        )
        self.resolver = Resolver(memory, shared, self.recipes, self.compiler, self.pools)

    async def register(self, **fields: object) -> Task:
        """Write the task to the store, not compiled yet."""
        self.task = task_of(0, **fields)
        await self.store.create(self.task)
        return self.task

    async def resolve(self) -> Resolved:
        return await self.resolver.resolve(TENANT, self.task.id)

    async def stored(self) -> Task:
        task = await self.store.get(TENANT, self.task.id)
        assert task is not None
        return task

    async def settle(self) -> None:
        """Wait for the compiles in the background."""
        running = list(self.resolver._running.values())
        await asyncio.gather(*running, return_exceptions=True)

    def age(self) -> None:
        """Let every entry in memory go stale."""
        self.now += TTL

    @property
    def compiles(self) -> int:
        return self.generator.calls.total()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"loragen_{name}", labels) or 0.0
