"""Resolve: memory, Redis, and one compile however many ask."""

import asyncio

import pytest

from loragen.errors import (
    StoreUnavailable,
    TaskNotFound,
)
from loragen.keys import TenantKeys
from server.recipe_tier import RecipeTier
from tests.contract.store_contract import TENANT
from tests.fakes.fake_worker import POOL_ID
from tests.fakes.resolving import Bench, metric, until
from tests.fakes.stub_generator import recipe_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


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
    await bench.resolver.invalidate(task.tenant, task.id)
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
    recipes = RecipeTier(bench.store, lambda tenant: TenantKeys((bytes(32),), tenant))
    keys = [
        *recipes.keys(bench.task, ref),
        *recipes.keys(bench.task, ref.model_copy(update={"pool_id": "00" * 32})),
        *recipes.keys(bench.task.model_copy(update={"tenant": "b"}), ref),
    ]
    assert len(set(keys)) == 3
    assert bench.store.recipe_keys() == keys[:1]
