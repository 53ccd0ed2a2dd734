"""What the gateway relies on in a store. A subclass gives the fixtures `store` and `damage`."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragen.errors import LimitExceeded, StoreUnavailable, TaskNotFound
from loragen.measurement import Measurement, RefineOutcome
from loragen.store import Deleted, Store
from loragen.task import Policy, RecipeRef, Spare, Task, TaskRecord

TENANT = "default"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"default": None}}}]
REF = RecipeRef(
    id="01" * 32, bytes=10, pool_id="02" * 32, generator_id="03" * 32, level=1,
    template_hash="04" * 32,
)  # fmt: skip


def task_of(number: int, **fields: Any) -> Task:
    """Return a task, the higher its number the newer."""
    known = {
        "id": "task_" + chr(ord("a") + number) * 26,
        "tenant": TENANT,
        "edge_model": "demo",
        "prompt": f"Prompt {number}: ünïcode 🦊 \r\n\t end",
        "created_at": 1_000 + number,
        "prompt_tokens": 7,
    }
    return Task.model_validate({**known, **fields})


def ids(tasks: Sequence[TaskRecord]) -> list[str]:
    """Return the ids of tasks."""
    return [task.id for task in tasks]


class StoreContract:
    """The checks."""

    async def test_a_task_comes_back_whole(self, store: Store) -> None:
        task = task_of(
            0, policy=Policy(fallback="error"), min_fidelity=0.5, recipe=REF,
            status="ready", compile_seconds=0.25, tools=TOOLS, refined=b"\x00\xff refined",
            measurement=Measurement.of(REF.id, fidelity=0.9),
            refine=RefineOutcome(status="done", probes=8, fidelity_after=0.9),
            probes=({"input": "Ünïcode?"}, {"input": "Two?", "output": "2"}), needs_measure=True,
            spare=Spare(recipe=REF.model_copy(update={"pool_id": "05" * 32}), ready_at=7),
            spare_refined=b"\x00\xff spare",
        )  # fmt: skip
        assert await store.create(task)
        assert await store.get(TENANT, task.id) == task

    async def test_an_existing_task_is_not_overwritten(self, store: Store) -> None:
        await store.create(task_of(0, min_fidelity=0.1))
        assert not await store.create(task_of(0, min_fidelity=0.9))
        kept = await store.get(TENANT, task_of(0).id)
        assert kept is not None
        assert kept.min_fidelity == 0.1

    async def test_a_prompt_is_found_by_any_of_its_ids(self, store: Store) -> None:
        new, old = task_of(0).id, task_of(1).id
        assert await store.find(TENANT, (new, old)) is None
        await store.create(task_of(1))
        assert await store.find(TENANT, (new, old)) == old
        assert await store.find("other", (new, old)) is None
        assert not await store.create(task_of(0), others=(old,))
        assert await store.get(TENANT, new) is None
        assert await store.create(task_of(0))
        assert await store.find(TENANT, (new, old)) == new
        assert await store.find(TENANT, (old, new)) == old

    async def test_a_task_is_found_by_the_link_it_has_last(self, store: Store) -> None:
        task, other, third = (task_of(number) for number in range(3))
        assert not await store.link(TENANT, task.id, other.id)  # there is no such task yet
        await store.create(task)
        assert await store.link(TENANT, task.id, other.id)
        assert await store.find(TENANT, (other.id,)) == task.id
        assert not await store.create(other)  # the prompt is there
        assert await store.link(TENANT, task.id, third.id)
        assert await store.find(TENANT, (other.id,)) is None
        assert await store.find(TENANT, (third.id,)) == task.id
        assert await store.get(TENANT, task.id) == task
        await store.delete(TENANT, task.id)
        assert await store.find(TENANT, (third.id, task.id)) is None
        assert await store.create(third)

    async def test_an_implicit_task_has_no_link_and_becomes_explicit_beside_others(
        self, store: Store
    ) -> None:
        task, other = task_of(0, is_implicit=True), task_of(1, is_implicit=True)
        await store.create(task)
        assert not await store.link(TENANT, task.id, other.id)
        await store.create(other)  # by a gateway that did not know the other's secret
        assert await store.create(task_of(0), others=(other.id,))

    async def test_every_task_is_told_and_is_sealed_as_it_would_be_now(self, store: Store) -> None:
        tasks = [task_of(0), task_of(1, tenant="other"), task_of(2, is_implicit=True)]
        for task in tasks:
            await store.create(task)
        await store.put_recipe(f"{TENANT}:k", b"recipe")
        told = {each async for each in store.tasks()}
        assert told == {(task.tenant, task.id) for task in tasks}
        for task in tasks:
            resealed = await store.reseal(task.tenant, task.id)
            assert (resealed.values, resealed.unreadable) == (0, 0)
            assert resealed.is_implicit == task.is_implicit
        assert not await store.reseal_recipe(f"{TENANT}:k")
        assert not await store.reseal_recipe(f"{TENANT}:none")
        assert (await store.reseal(TENANT, task_of(3).id)).values == 0

    async def test_a_tenant_has_no_more_tasks_than_it_may(self, store: Store) -> None:
        made = await asyncio.gather(
            *(store.create(task_of(number), most=3) for number in range(10)),
            return_exceptions=True,
        )
        assert made.count(True) == 3
        assert {type(each) for each in made} == {bool, LimitExceeded}
        assert len((await store.page(TENANT, limit=20)).tasks) == 3
        known = (await store.page(TENANT, limit=1)).tasks[0]
        again = task_of(ord(known.id[-1]) - ord("a"))
        assert not await store.create(again, most=3)  # it is there: nothing is refused
        assert await store.create(task_of(20, is_implicit=True), most=3)
        assert await store.create(task_of(21, tenant="other"), most=3)
        with pytest.raises(LimitExceeded):
            await store.create(task_of(20), most=3)
        await store.delete(TENANT, known.id)
        assert await store.create(task_of(20), most=3)

    async def test_of_concurrent_creates_one_wins(self, store: Store) -> None:
        written = await asyncio.gather(*(store.create(task_of(0)) for _ in range(20)))
        assert sorted(written) == [False] * 19 + [True]

    async def test_update_replaces_the_record_and_keeps_the_prompt_and_the_tools(
        self, store: Store
    ) -> None:
        await store.create(task_of(0, tools=TOOLS))
        changed = task_of(0, status="ready", recipe=REF, tools=TOOLS)
        assert await store.update(changed.model_copy(update={"prompt": "other", "tools": ()}))
        assert await store.get(TENANT, changed.id) == changed

    async def test_update_replaces_the_refined_recipe(self, store: Store) -> None:
        await store.create(task_of(0))
        for refined, spare in ((b"one", b""), (b"two", b"three"), (b"", b"three"), (b"", b"")):
            changed = task_of(0, refined=refined, spare_refined=spare)
            await store.update(changed)
            assert await store.get(TENANT, changed.id) == changed

    async def test_a_deleted_task_cannot_be_updated_to_life(self, store: Store) -> None:
        await store.create(task_of(0))
        await store.delete(TENANT, task_of(0).id)
        assert not await store.update(task_of(0, status="ready"))
        assert await store.get(TENANT, task_of(0).id) is None

    async def test_delete_takes_the_place_in_the_list(self, store: Store) -> None:
        await store.create(task_of(0))
        assert await store.delete(TENANT, task_of(0).id) is not None
        assert (await store.page(TENANT, limit=10)).tasks == []
        assert await store.delete(TENANT, task_of(0).id) is None

    async def test_delete_tells_what_the_task_was_in_that_moment(self, store: Store) -> None:
        await store.create(task_of(0))
        await store.update(task_of(0, status="ready", recipe=REF))
        record = (await store.records(TENANT, [task_of(0).id]))[task_of(0).id]
        assert record.recipes == (REF,)
        assert await store.delete(TENANT, task_of(0).id) == Deleted(record)

    async def test_a_task_that_cannot_be_read_is_deleted_all_the_same(
        self, store: Store, damage: Callable[[str], None]
    ) -> None:
        await store.create(task_of(0))
        damage(task_of(0).id)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await store.get(TENANT, task_of(0).id)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            await store.records(TENANT, [task_of(0).id])
        assert await store.delete(TENANT, task_of(0).id) == Deleted(None)
        assert await store.delete(TENANT, task_of(0).id) is None

    async def test_a_page_has_its_order_and_its_limit(self, store: Store) -> None:
        for number in (1, 3, 0, 2, 4):
            await store.create(task_of(number))
        await store.delete(TENANT, task_of(3).id)
        page = await store.page(TENANT, limit=3)
        assert (ids(page.tasks), page.has_more) == (ids([task_of(n) for n in (4, 2, 1)]), True)
        page = await store.page(TENANT, limit=4)
        assert (ids(page.tasks), page.has_more) == (ids([task_of(n) for n in (4, 2, 1, 0)]), False)
        page = await store.page(TENANT, limit=2, newest_first=False)
        assert (ids(page.tasks), page.has_more) == (ids([task_of(n) for n in (0, 1)]), True)

    async def test_tasks_of_one_second_have_a_stable_order(self, store: Store) -> None:
        for number in (1, 0, 2):
            await store.create(task_of(number, created_at=5))
        page = await store.page(TENANT, limit=9)
        assert ids(page.tasks) == ids([task_of(n) for n in (2, 1, 0)])

    async def test_a_page_behind_a_task_that_never_was_is_refused(self, store: Store) -> None:
        await store.create(task_of(0))
        with pytest.raises(TaskNotFound) as caught:
            await store.page(TENANT, limit=1, after=task_of(1).id)
        assert caught.value.param == "after"

    @settings(
        max_examples=60,
        deadline=None,
        # Every example has a tenant of its own, and the two stores never meet.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(paging=st.data())
    async def test_paging_meets_every_task_once_whatever_happens_meanwhile(
        self, store: Store, paging: st.DataObject
    ) -> None:
        tenant = uuid.uuid4().hex
        created_at = paging.draw(st.lists(st.integers(1, 3), max_size=8))
        newest_first = paging.draw(st.booleans())
        tasks = [task_of(n, tenant=tenant, created_at=at) for n, at in enumerate(created_at)]
        for task in tasks:
            await store.create(task)
        lasting, free = set(ids(tasks)), list(range(len(tasks), 26))
        seen: list[TaskRecord] = []
        has_more = True
        while has_more:
            page = await store.page(
                tenant,
                limit=paging.draw(st.integers(1, 3)),
                after=seen[-1].id if seen else None,
                newest_first=newest_first,
            )
            seen += page.tasks
            has_more = page.has_more
            if paging.draw(st.booleans()) and lasting:
                gone = paging.draw(st.sampled_from(sorted(lasting)))
                await store.delete(tenant, gone)
                lasting.remove(gone)
            if paging.draw(st.booleans()) and seen:
                lasting.discard(seen[-1].id)
                await store.delete(tenant, seen[-1].id)  # what the next page goes on behind
            if paging.draw(st.booleans()) and free:
                late = task_of(free.pop(), tenant=tenant, created_at=paging.draw(st.integers(0, 4)))
                await store.create(late)
        assert len(set(ids(seen))) == len(seen)
        assert lasting <= set(ids(seen))
        order = [(task.created_at, task.id) for task in seen]
        assert order == sorted(order, reverse=newest_first)

    async def test_records_are_read_without_prompts(self, store: Store) -> None:
        await store.create(task_of(0, min_fidelity=0.5))
        found = await store.records(TENANT, [task_of(0).id, task_of(1).id])
        assert list(found) == [task_of(0).id]
        assert type(found[task_of(0).id]) is TaskRecord
        assert found[task_of(0).id].min_fidelity == 0.5

    async def test_an_implicit_task_is_kept_whole_but_not_listed(self, store: Store) -> None:
        task = task_of(0, is_implicit=True)
        assert await store.create(task)
        assert not await store.create(task_of(0, is_implicit=True, min_fidelity=0.1))
        assert await store.update(task_of(0, is_implicit=True, status="ready", recipe=REF))
        kept = await store.get(TENANT, task.id)
        assert kept == task_of(0, is_implicit=True, status="ready", recipe=REF)
        assert (await store.page(TENANT, limit=9)).tasks == []
        assert await store.delete(TENANT, task.id) is not None
        assert await store.get(TENANT, task.id) is None

    async def test_an_implicit_task_gives_way_to_one_that_is_not(self, store: Store) -> None:
        await store.create(task_of(0, is_implicit=True))
        assert await store.create(task_of(0, min_fidelity=0.1))
        assert not await store.create(task_of(0, is_implicit=True))
        assert await store.get(TENANT, task_of(0).id) == task_of(0, min_fidelity=0.1)
        assert ids((await store.page(TENANT, limit=9)).tasks) == [task_of(0).id]

    async def test_tenants_see_only_their_own(self, store: Store) -> None:
        await store.create(task_of(0))
        assert await store.get("other", task_of(0).id) is None
        assert (await store.page("other", limit=10)).tasks == []
        assert await store.records("other", [task_of(0).id]) == {}
        assert await store.delete("other", task_of(0).id) is None
        assert await store.create(task_of(0, tenant="other"))

    async def test_it_answers(self, store: Store) -> None:
        await store.ping()
