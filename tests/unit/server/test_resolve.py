"""Resolve: memory, Redis, one compile however many ask, and a fallback that says why."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from prometheus_client import REGISTRY

from loragen.errors import (
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    PromptTooLong,
    StoreUnavailable,
    TaskNotFound,
)
from loragen.keys import TenantKeys
from loragen.task import Policy, Task
from server.generator import Generator
from server.memory import MemoryTier, Resolved
from server.resolve import Resolver, Tiers
from tests.contract.store_contract import TENANT, task_of
from tests.fakes.fake_worker import POOL_ID
from tests.fakes.memory_store import MemoryStore
from tests.fakes.stub_generator import StubGenerator, recipe_of, reply_of

TTL = 2.0


@dataclass
class Bench:
    """A resolver over fakes, with a clock of its own."""

    store: MemoryStore = field(default_factory=MemoryStore)
    generator: StubGenerator = field(default_factory=StubGenerator)
    has_generator: bool = True
    timeout: float = 5.0
    now: float = 0.0

    def __post_init__(self) -> None:
        self.task = task_of(0)
        generators: dict[str, Generator] = {"demo": self.generator} if self.has_generator else {}
        memory = MemoryTier(entries=100, ttl_seconds=TTL, clock=lambda: self.now)
        self.resolver = Resolver(
            Tiers(memory, self.store, generators),
            lambda tenant: TenantKeys(bytes(32), tenant),
            timeout_seconds=self.timeout,
        )

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


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"loragen_{name}", labels) or 0.0


async def test_a_task_is_compiled_once_and_served_from_memory_then_redis(bench: Bench) -> None:
    await bench.register()
    first = await bench.resolve()
    assert first.recipe == recipe_of(bench.task.prompt)
    assert (first.task.status, first.task.fallback_reason) == ("ready", None)
    assert await bench.stored() == first.task
    before = metric("recipe_cache_hits_total", tier="memory")
    assert await bench.resolve() == first
    assert metric("recipe_cache_hits_total", tier="memory") == before + 1
    bench.age()
    before = metric("recipe_cache_hits_total", tier="redis")
    assert await bench.resolve() == first
    assert metric("recipe_cache_hits_total", tier="redis") == before + 1
    assert bench.compiles == 1


async def test_another_gateway_serves_what_this_one_compiled(bench: Bench) -> None:
    await bench.register()
    first = await bench.resolve()
    other = Bench(store=bench.store)
    assert await other.resolve() == first
    assert other.compiles == 0


async def test_an_unknown_task_is_not_found(bench: Bench) -> None:
    with pytest.raises(TaskNotFound):
        await bench.resolve()


async def test_fifty_who_ask_at_once_cost_one_compile(bench: Bench) -> None:
    await bench.register()
    bench.generator.is_held = True
    before = metric("compile_coalesced_total")
    asking = [asyncio.create_task(bench.resolve()) for _ in range(50)]
    await until(lambda: metric("compile_coalesced_total") == before + 49)
    await until(lambda: metric("compile_inflight") == 1)
    bench.generator.is_held = False
    found = await asyncio.gather(*asking)
    assert bench.compiles == 1
    assert len({resolved.task.recipe for resolved in found}) == 1
    assert metric("compile_inflight") == 0


async def test_fifty_who_meet_a_flushed_recipe_cost_one_compile(bench: Bench) -> None:
    await bench.register()
    await bench.resolve()
    bench.age()
    for key in bench.store.recipe_keys():
        await bench.store.delete_recipe(key)
    await asyncio.gather(*(bench.resolve() for _ in range(50)))
    assert bench.compiles == 2


async def test_one_who_leaves_does_not_end_the_compile_of_the_others(bench: Bench) -> None:
    await bench.register()
    bench.generator.is_held = True
    leaving, staying = (asyncio.create_task(bench.resolve()) for _ in range(2))
    await until(lambda: bench.compiles == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    bench.generator.is_held = False
    assert (await staying).recipe is not None
    assert bench.compiles == 1


async def test_a_compile_goes_on_when_all_have_left(bench: Bench) -> None:
    await bench.register()
    bench.generator.is_held = True
    asking = asyncio.create_task(bench.resolve())
    await until(lambda: bench.compiles == 1)
    asking.cancel()
    bench.generator.is_held = False
    await bench.settle()
    assert (await bench.stored()).status == "ready"


async def test_a_task_deleted_while_it_compiles_leaves_nothing(bench: Bench) -> None:
    task = await bench.register()
    before = metric("compile_failures_total", reason="compile_failed")
    bench.generator.is_held = True
    asking = asyncio.create_task(bench.resolve())
    await until(lambda: bench.compiles == 1)
    await bench.store.delete(TENANT, task.id)
    bench.resolver.forget(task)
    bench.generator.is_held = False
    with pytest.raises(TaskNotFound):
        await asking
    assert bench.store.recipe_keys() == []
    assert metric("compile_failures_total", reason="compile_failed") == before
    with pytest.raises(TaskNotFound):
        await bench.resolve()


async def test_a_delete_elsewhere_is_seen_within_the_time_to_live(bench: Bench) -> None:
    task = await bench.register()
    await bench.resolve()
    await bench.store.delete(TENANT, task.id)
    assert (await bench.resolve()).recipe is not None
    bench.age()
    with pytest.raises(TaskNotFound):
        await bench.resolve()


async def test_while_redis_is_away_known_tasks_serve_and_others_are_unavailable(
    bench: Bench,
) -> None:
    await bench.register()
    first = await bench.resolve()
    bench.store.is_away = True
    bench.age()
    assert await bench.resolve() == first
    with pytest.raises(StoreUnavailable):
        await bench.resolver.resolve(TENANT, "task_" + "z" * 26)
    bench.store.is_away = False
    await bench.store.delete(TENANT, bench.task.id)
    bench.age()
    with pytest.raises(TaskNotFound):
        await bench.resolve()


async def test_a_dead_redis_is_asked_once_per_time_to_live(bench: Bench) -> None:
    await bench.register()
    await bench.resolve()
    bench.age()
    bench.store.is_away = True
    await bench.resolve()
    bench.store.is_away = False
    await bench.store.delete(TENANT, bench.task.id)
    assert (await bench.resolve()).recipe is not None  # fresh again: Redis was not asked


@pytest.mark.parametrize("length", [0, 20, 60])
async def test_a_damaged_recipe_is_dropped_and_compiled_again(bench: Bench, length: int) -> None:
    await bench.register()
    first = await bench.resolve()
    (key,) = bench.store.recipe_keys()
    bench.store.damage(key, recipe_of(bench.task.prompt).data[:length])
    bench.age()
    assert await bench.resolve() == first
    assert bench.compiles == 2
    assert await bench.store.get_recipe(key) == recipe_of(bench.task.prompt).data


async def test_a_recipe_that_is_whole_but_another_is_compiled_again(bench: Bench) -> None:
    await bench.register()
    first = await bench.resolve()
    (key,) = bench.store.recipe_keys()
    bench.store.damage(key, recipe_of("another prompt").data)
    bench.age()
    assert await bench.resolve() == first
    assert bench.compiles == 2


@pytest.mark.parametrize("damaged", [b"LGRC", recipe_of("x", pool_id="00" * 32).data])
async def test_damaged_bytes_where_a_new_recipe_goes_are_replaced(
    bench: Bench, damaged: bytes
) -> None:
    await bench.register()
    await bench.resolve()
    (key,) = bench.store.recipe_keys()
    await bench.store.delete(TENANT, bench.task.id)
    bench.store.damage(key, damaged)
    bench.age()
    await bench.register()
    assert (await bench.resolve()).recipe == recipe_of(bench.task.prompt)
    assert await bench.store.get_recipe(key) == recipe_of(bench.task.prompt).data


async def test_the_first_written_recipe_is_everyones(bench: Bench) -> None:
    await bench.register()
    await bench.resolve()
    (key,) = bench.store.recipe_keys()
    winner = recipe_of("another generator run")
    await bench.store.delete(TENANT, bench.task.id)
    bench.store.damage(key, winner.data)
    bench.age()
    await bench.register()
    resolved = await bench.resolve()
    assert resolved.recipe == winner
    assert resolved.task.recipe is not None
    assert resolved.task.recipe.id == winner.id


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GeneratorUnavailable("x"), "generator_unavailable"),
        (Overloaded("x"), "generator_overloaded"),
        (LoragenError("x"), "compile_failed"),
        (PromptTooLong("x"), "prompt_too_long"),
    ],
)
async def test_a_failed_compile_falls_back_with_its_reason(
    bench: Bench, error: LoragenError, reason: str
) -> None:
    await bench.register()
    bench.generator.error = error
    before = metric("compile_failures_total", reason=reason)
    resolved = await bench.resolve()
    assert resolved.recipe is None
    assert (resolved.task.status, resolved.task.fallback_reason) == ("fallback", reason)
    assert await bench.stored() == resolved.task
    assert metric("compile_failures_total", reason=reason) == before + 1


async def test_a_compile_that_hangs_ends_at_its_deadline() -> None:
    bench = Bench(timeout=0.01)
    await bench.register()
    bench.generator.is_held = True
    assert (await bench.resolve()).task.fallback_reason == "compile_timeout"
    assert metric("compile_inflight") == 0


async def test_without_a_generator_a_model_serves_the_prompt() -> None:
    bench = Bench(has_generator=False)
    await bench.register()
    assert (await bench.resolve()).task.fallback_reason == "no_generator"
    bench.age()
    assert (await bench.resolve()).recipe is None


async def test_a_task_that_forbids_a_fallback_is_failed(bench: Bench) -> None:
    await bench.register(policy=Policy(fallback="error"))
    bench.generator.error = GeneratorUnavailable("x")
    assert (await bench.resolve()).task.status == "failed"


async def test_after_a_passing_failure_the_prompt_serves_at_once_and_a_compile_runs_beside_it(
    bench: Bench,
) -> None:
    await bench.register()
    bench.generator.error = GeneratorUnavailable("x")
    await bench.resolve()
    bench.generator.error = None
    bench.age()
    assert (await bench.resolve()).recipe is None
    await bench.settle()
    ready = await bench.resolve()
    assert ready.recipe is not None
    assert ready.task.fallback_reason is None
    assert await bench.stored() == ready.task


async def test_a_prompt_too_long_is_not_tried_again(bench: Bench) -> None:
    await bench.register()
    bench.generator.error = PromptTooLong("x")
    await bench.resolve()
    bench.age()
    await bench.resolve()
    await bench.settle()
    assert bench.compiles == 1


async def test_a_fallback_is_no_recipe_found_in_memory(bench: Bench) -> None:
    await bench.register()
    bench.generator.error = PromptTooLong("x")
    await bench.resolve()
    before = metric("recipe_cache_hits_total", tier="memory")
    await bench.resolve()
    assert metric("recipe_cache_hits_total", tier="memory") == before


@pytest.mark.parametrize("change", ["recipe_id", "pool_id", "level", "recipe"])
async def test_a_reply_that_contradicts_its_recipe_is_a_failed_compile(
    bench: Bench, change: str
) -> None:
    await bench.register()
    wrong = {"recipe_id": "00" * 32, "pool_id": "00" * 32, "level": 0, "recipe": "Zm9yZ2Vk"}
    reply = reply_of(recipe_of(bench.task.prompt))
    bench.generator.reply = reply.model_copy(update={change: wrong[change]})
    assert (await bench.resolve()).task.fallback_reason == "compile_failed"
    assert bench.store.recipe_keys() == []


async def test_a_recipe_a_worker_refused_is_compiled_for_the_pool_of_now(bench: Bench) -> None:
    await bench.register()
    old = await bench.resolve()
    bench.generator.pool_id = "00" * 32
    found = await asyncio.gather(*(bench.resolver.recompile(old) for _ in range(20)))
    assert {resolved.recipe.pool_id for resolved in found if resolved.recipe} == {"00" * 32}
    late = await bench.resolver.recompile(old)
    assert late == found[0]
    assert bench.compiles == 2
    assert (await bench.stored()).id == old.task.id


async def test_a_task_set_aside_serves_its_prompt_until_memory_is_stale(bench: Bench) -> None:
    await bench.register()
    ready = await bench.resolve()
    bench.resolver.set_aside(ready.task, "worker_pool_mismatch")
    aside = await bench.resolve()
    assert (aside.recipe, aside.task.fallback_reason) == (None, "worker_pool_mismatch")
    assert (await bench.stored()).fallback_reason is None
    bench.age()
    assert await bench.resolve() == ready


async def test_closing_ends_the_compiles_under_way(bench: Bench) -> None:
    task = await bench.register()
    bench.generator.is_held = True
    running = bench.resolver.start(task)
    await asyncio.sleep(0)
    await bench.resolver.close()
    assert running.cancelled()
    assert metric("compile_inflight") == 0


async def test_the_recipe_key_depends_on_pool_and_tenant(bench: Bench) -> None:
    await bench.register()
    ref = (await bench.resolve()).task.recipe
    assert ref is not None
    assert ref.pool_id == POOL_ID
    keys = {
        bench.resolver.recipe_key(bench.task, ref),
        bench.resolver.recipe_key(bench.task, ref.model_copy(update={"pool_id": "00" * 32})),
        bench.resolver.recipe_key(bench.task.model_copy(update={"tenant": "b"}), ref),
    }
    assert len(keys) == 3
