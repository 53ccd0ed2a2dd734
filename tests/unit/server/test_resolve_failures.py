"""Resolve when something is wrong: damage heals, a failure falls back and says why."""

import asyncio

import pytest

from loragen.errors import (
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    PromptTooLong,
)
from loragen.recipe import Recipe
from loragen.task import Policy, RecipeRef
from server.memory import Resolved
from tests.contract.store_contract import REF, TENANT
from tests.fakes.resolving import Bench, metric
from tests.fakes.stub_generator import recipe_of, reply_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ref_of(recipe: Recipe) -> RecipeRef:
    fields = {"bytes": len(recipe.data), "pool_id": recipe.pool_id}
    return REF.model_copy(update={"id": recipe.id, **fields})


@pytest.mark.parametrize("length", [0, 20, 60])
async def test_a_damaged_recipe_is_dropped_and_compiled_again(bench: Bench, length: int) -> None:
    await bench.register()
    first = await bench.resolve()
    (key,) = bench.store.recipe_keys()
    bench.store.damage(key, recipe_of(bench.task.prompt).data[:length])
    bench.age()
    # The task itself says by the second when it was made ready again.
    assert (await bench.resolve()).recipe == first.recipe
    assert bench.compiles == 2
    assert await bench.store.get_recipe(key) == recipe_of(bench.task.prompt).data


async def test_a_recipe_that_is_whole_but_another_is_compiled_again(bench: Bench) -> None:
    await bench.register()
    first = await bench.resolve()
    (key,) = bench.store.recipe_keys()
    bench.store.damage(key, recipe_of("another prompt").data)
    bench.age()
    # The task itself says by the second when it was made ready again.
    assert (await bench.resolve()).recipe == first.recipe
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


async def test_without_a_generator_a_known_fallback_costs_no_lease_and_no_write() -> None:
    bench = Bench(has_generator=False)
    await bench.register()
    first = await bench.resolve()
    bench.leases.is_away = True
    bench.age()
    assert (await bench.resolve()).task == first.task
    await bench.settle()
    assert await bench.stored() == first.task


async def test_without_a_generator_a_recipe_that_workers_refuse_is_dropped_but_no_later_one() -> (
    None
):
    bench = Bench(has_generator=False)
    old, new = recipe_of("old"), recipe_of("new", pool_id="00" * 32)
    task = await bench.register(status="ready", recipe=ref_of(old), refined=old.data)
    held = await bench.resolve()
    assert held.recipe == old
    later = task.model_copy(update={"recipe": ref_of(new), "refined": new.data})
    await bench.store.update(later)  # by a gateway whose word was lost
    assert (await bench.resolver.recompile(held)).recipe == new
    assert await bench.stored() == later
    fallen = await bench.resolver.recompile(Resolved(later, new))
    assert fallen.recipe is None
    stored = await bench.stored()
    assert (stored.status, stored.fallback_reason) == ("fallback", "worker_pool_mismatch")
    assert (stored.recipe, stored.refined) == (None, b"")


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


async def test_a_recipe_for_a_third_pool_leaves_nothing_of_the_one_for_the_first(
    bench: Bench,
) -> None:
    await bench.register()
    held = await bench.resolve()
    for pool_id in ("00" * 32, "0f" * 32):
        bench.generator.pool_id = pool_id
        held = await bench.resolver.recompile(held)
    stored = await bench.stored()
    assert [ref.pool_id for ref in stored.recipes] == ["0f" * 32, "00" * 32]
    kept = [bench.recipes.keys(stored, ref)[0] for ref in stored.recipes]
    assert sorted(bench.store.recipe_keys()) == sorted(kept)


async def test_a_task_set_aside_serves_its_prompt_until_memory_is_stale(bench: Bench) -> None:
    await bench.register()
    ready = await bench.resolve()
    bench.resolver.set_aside(ready.task, "worker_pool_mismatch")
    aside = await bench.resolve()
    assert (aside.recipe, aside.task.fallback_reason) == (None, "worker_pool_mismatch")
    assert (await bench.stored()).fallback_reason is None
    bench.age()
    assert await bench.resolve() == ready
