"""Two gateways over one Redis: one compile, and nothing deleted stays in either's memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loragen.errors import LoragenError, TaskNotFound
from loragen.task import Task
from server.memory import Resolved
from tests.contract.store_contract import TENANT
from tests.fakes.fake_worker import POOL_ID
from tests.fakes.memory_store import MemoryStore
from tests.fakes.resolving import Bench, metric, until

Two = tuple[Bench, Bench]


class LateStore(MemoryStore):
    """Its recipes arrive late while told so."""

    is_late = False
    late = 0

    async def get_recipe(self, key: str) -> bytes | None:
        data = await super().get_recipe(key)
        self.late += self.is_late
        while self.is_late:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        return data


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    """Two gateways that share Redis and the generator, and listen to each other."""
    one = Bench()
    other = Bench(one.store, one.leases, one.invalidations, one.generator)
    async with listening(one), listening(other):
        yield one, other


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[None]:
    before = len(bench.invalidations.followers)
    task = asyncio.create_task(bench.resolver.follow_invalidations())
    await until(lambda: len(bench.invalidations.followers) > before)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def both(two: Two, task: Task, times: int = 1) -> list[Resolved]:
    """Resolve a task in both gateways at once."""
    asking = [bench.resolver.resolve(TENANT, task.id) for bench in two for _ in range(times)]
    return await asyncio.gather(*asking)


async def test_a_hundred_who_ask_two_gateways_cost_one_compile(two: Two) -> None:
    task = await two[0].register()
    found = await both(two, task, times=50)
    assert two[0].compiles == 1
    assert len({resolved.task.recipe for resolved in found}) == 1
    assert all(resolved.recipe is not None for resolved in found)


async def test_a_flushed_recipe_costs_one_compile_too(two: Two) -> None:
    task = await two[0].register()
    await both(two, task)
    for key in two[0].store.recipe_keys():
        await two[0].store.delete_recipe(key)
    for bench in two:
        bench.age()
    await both(two, task, times=10)
    assert two[0].compiles == 2


async def test_a_failure_is_everyones_and_is_not_tried_by_each(two: Two) -> None:
    task = await two[0].register()
    two[0].generator.error = LoragenError("no")
    found = await both(two, task, times=10)
    assert two[0].compiles == 1
    assert {resolved.task.fallback_reason for resolved in found} == {"compile_failed"}


async def test_a_recipe_that_workers_refuse_is_compiled_again_once(two: Two) -> None:
    task = await two[0].register()
    refused = await both(two, task)
    two[0].generator.pool_id = "00" * 32
    found = await asyncio.gather(
        *(bench.resolver.recompile(old) for bench, old in zip(two, refused, strict=True))
    )
    assert two[0].compiles == 2
    pools = {resolved.recipe.pool_id for resolved in found if resolved.recipe is not None}
    assert pools == {"00" * 32}


async def test_a_refused_recipe_that_comes_again_is_not_taken_for_a_new_one(two: Two) -> None:
    task = await two[0].register()
    refused, _ = await both(two, task)
    again = await two[0].resolver.recompile(refused)
    assert two[0].compiles == 2
    assert again.recipe is not None
    assert again.recipe.pool_id == POOL_ID


async def test_while_another_gateway_compiles_too_long_the_prompt_serves_unrecorded() -> None:
    bench = Bench(timeout=0.05)
    task = await bench.register()
    await bench.leases.acquire(f"compile:{TENANT}:{task.id}", "another", seconds=60)
    resolved = await bench.resolve()
    assert (resolved.recipe, resolved.task.fallback_reason) == (None, "compile_timeout")
    assert (await bench.stored()).status == "compiling"
    assert bench.compiles == 0


async def test_a_delete_is_seen_by_the_other_at_once(two: Two) -> None:
    task = await two[0].register()
    await both(two, task)
    await two[0].store.delete(TENANT, task.id)
    await two[0].resolver.invalidate(task.tenant, task.id)
    for bench in two:
        with pytest.raises(TaskNotFound):
            await bench.resolve()


async def test_a_delete_that_cannot_be_told_is_seen_within_the_time_to_live(two: Two) -> None:
    task = await two[0].register()
    await both(two, task)
    two[0].invalidations.is_away = True
    await two[0].store.delete(TENANT, task.id)
    await two[0].resolver.invalidate(task.tenant, task.id)
    assert (await two[1].resolve()).recipe is not None
    two[1].age()
    with pytest.raises(TaskNotFound):
        await two[1].resolve()


async def test_an_answer_read_before_a_delete_brings_nothing_back() -> None:
    store = LateStore()
    bench = Bench(store=store)
    task = await bench.register()
    await bench.resolve()
    bench.age()
    store.is_late = True
    reading = asyncio.create_task(bench.resolve())
    await until(lambda: store.late == 1)
    await store.delete(TENANT, task.id)
    await bench.resolver.invalidate(task.tenant, task.id)
    store.is_late = False
    assert (await reading).recipe is not None  # it asked before the delete
    with pytest.raises(TaskNotFound):
        await bench.resolve()


async def test_a_compile_that_outlives_its_task_brings_nothing_back(two: Two) -> None:
    task = await two[0].register()
    two[0].generator.is_held = True
    asking = [asyncio.create_task(bench.resolve()) for bench in two]
    await until(lambda: two[0].compiles == 1)
    await two[0].store.delete(TENANT, task.id)
    await two[0].resolver.invalidate(task.tenant, task.id)
    two[0].generator.is_held = False
    for each in asking:
        with pytest.raises(TaskNotFound):
            await each
    for bench in two:
        with pytest.raises(TaskNotFound):
            await bench.resolve()
    assert two[0].store.recipe_keys() == []


async def test_a_task_set_aside_after_its_delete_is_not_kept(two: Two) -> None:
    task = await two[0].register()
    await both(two, task)
    await two[0].store.delete(TENANT, task.id)
    await two[0].resolver.invalidate(task.tenant, task.id)
    two[1].resolver.set_aside(task, "worker_pool_mismatch")
    with pytest.raises(TaskNotFound):
        await two[1].resolve()


async def test_those_who_take_anothers_recipe_are_counted(two: Two) -> None:
    task = await two[0].register()
    before = metric("compile_coalesced_total")
    await both(two, task)
    assert metric("compile_coalesced_total") == before + 1
