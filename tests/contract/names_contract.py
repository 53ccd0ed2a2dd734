"""What the gateway relies on in names. A subclass gives the fixture `kept`."""

import asyncio
from dataclasses import dataclass

import pytest

from loragen.errors import Conflict, NotFound, TaskNotFound
from loragen.names import Alias, Change, Names, Version
from loragen.store import Store
from tests.contract.store_contract import TENANT, task_of

KEEP = 5
A, B, C = (task_of(number).id for number in range(3))


@dataclass
class Kept:
    """Names and the store that has their tasks."""

    names: Names
    store: Store

    async def put(self, task_id: str, name: str = "ada") -> Change:
        """Point a name at a task in an edit that begins now."""
        edit = await self.names.begin_edit(TENANT)
        return await self.names.point(TENANT, name, task_id, edit=edit, now=9)

    async def versions(self, name: str = "ada") -> list[tuple[int, str]]:
        """Return the numbers and tasks of a name's versions."""
        history = await self.names.history(TENANT, name)
        return [] if history is None else [(each.number, each.task_id) for each in history.versions]

    async def current(self, name: str = "ada") -> tuple[int, str] | None:
        """Return number and task of the current version, on which all reads must agree."""
        history = await self.names.history(TENANT, name)
        found = await self.names.find(TENANT, name)
        assert (await self.names.all(TENANT)).get(name) == found
        if history is None or history.current is None:
            assert found is None
            return None
        assert found == history.current.task_id
        assert history.current in history.versions
        return history.current.number, history.current.task_id


class NamesContract:
    """The checks."""

    @pytest.fixture(autouse=True)
    async def tasks(self, kept: Kept) -> None:
        """Three tasks to name."""
        for number in range(3):
            await kept.store.create(task_of(number))

    async def test_a_name_has_a_version_for_every_edit(self, kept: Kept) -> None:
        assert await kept.put(A) == Change(Version(1, A, 9), is_new=True)
        assert await kept.put(B) == Change(Version(2, B, 9), is_new=True)
        assert await kept.put(A) == Change(Version(3, A, 9), is_new=True)
        assert await kept.current() == (3, A)
        assert await kept.versions() == [(1, A), (2, B), (3, A)]

    async def test_the_same_task_again_is_no_version(self, kept: Kept) -> None:
        await kept.put(A)
        assert await kept.put(A) == Change(Version(1, A, 9), is_new=False)
        assert await kept.versions() == [(1, A)]

    async def test_a_name_that_nobody_gave_is_nothing(self, kept: Kept) -> None:
        assert await kept.current() is None
        assert await kept.names.history(TENANT, "ada") is None
        assert not await kept.names.delete(TENANT, "ada")

    async def test_a_name_stands_for_existing_tasks_only(self, kept: Kept) -> None:
        await kept.store.delete(TENANT, A)
        edit = await kept.names.begin_edit(TENANT)
        with pytest.raises(TaskNotFound):
            await kept.names.point(TENANT, "ada", A, edit=edit, now=9)
        with pytest.raises(TaskNotFound):
            await kept.names.claim(TENANT, "ada", A, now=9)
        with pytest.raises(TaskNotFound):
            await kept.names.restore(TENANT, Alias("ada", Version(1, A, 9), is_current=True))
        assert await kept.current() is None

    async def test_of_two_edits_the_one_that_began_later_stays(self, kept: Kept) -> None:
        await kept.put(A)
        slow, quick = [await kept.names.begin_edit(TENANT) for _ in range(2)]
        await kept.names.point(TENANT, "ada", B, edit=quick, now=9)
        with pytest.raises(Conflict) as caught:
            await kept.names.point(TENANT, "ada", C, edit=slow, now=9)
        assert caught.value.param == "name"
        assert await kept.current() == (2, B)

    async def test_edits_that_end_in_their_order_all_count(self, kept: Kept) -> None:
        edits = [await kept.names.begin_edit(TENANT) for _ in range(2)]
        for edit, task_id in zip(edits, (A, B), strict=True):
            await kept.names.point(TENANT, "ada", task_id, edit=edit, now=9)
        assert await kept.versions() == [(1, A), (2, B)]

    async def test_an_edit_of_what_must_exist_does_not_bring_back_a_deleted_name(
        self, kept: Kept
    ) -> None:
        await kept.put(A)
        edit = await kept.names.begin_edit(TENANT)
        await kept.names.delete(TENANT, "ada")
        with pytest.raises(Conflict):
            await kept.names.point(TENANT, "ada", B, edit=edit, now=9, must_exist=True)
        await kept.names.claim(TENANT, "ada", C, now=9)
        with pytest.raises(Conflict):
            await kept.names.point(TENANT, "ada", B, edit=edit, now=9, must_exist=True)
        assert await kept.current() == (1, C)

    async def test_concurrent_edits_make_one_version_each(self, kept: Kept) -> None:
        results = await asyncio.gather(
            *(kept.put([A, B, C][number % 3]) for number in range(12)), return_exceptions=True
        )
        made = [each.version.number for each in results if isinstance(each, Change) and each.is_new]
        assert sorted(made) == list(range(1, len(made) + 1))
        current = await kept.current()
        assert current is not None
        assert current[0] == len(made)

    async def test_a_claim_takes_a_free_name_once(self, kept: Kept) -> None:
        assert (await kept.names.claim(TENANT, "ada", A, now=9)).is_new
        assert not (await kept.names.claim(TENANT, "ada", A, now=9)).is_new
        with pytest.raises(Conflict, match="PUT /v1/tasks/by-name/ada") as caught:
            await kept.names.claim(TENANT, "ada", B, now=9)
        assert caught.value.param == "name"
        assert await kept.versions() == [(1, A)]

    async def test_of_concurrent_claims_one_wins(self, kept: Kept) -> None:
        claims = [kept.names.claim(TENANT, "ada", task, now=9) for task in (A, B, C) * 4]
        results = await asyncio.gather(*claims, return_exceptions=True)
        assert sum(isinstance(each, Change) and each.is_new for each in results) == 1
        assert sum(isinstance(each, Conflict) for each in results) == 8

    async def test_a_rollback_is_another_version_of_an_old_task(self, kept: Kept) -> None:
        await kept.put(A)
        await kept.put(B)
        await kept.put(C)
        change = await kept.names.roll_back(TENANT, "ada", 1, now=9)
        assert change == Change(Version(4, A, 9), is_new=True)
        assert await kept.versions() == [(1, A), (2, B), (3, C), (4, A)]
        assert not (await kept.names.roll_back(TENANT, "ada", 4, now=9)).is_new
        assert not (await kept.names.roll_back(TENANT, "ada", 1, now=9)).is_new

    async def test_a_rollback_goes_to_the_last_other_task_by_default(self, kept: Kept) -> None:
        await kept.put(A)
        await kept.put(B)
        for expected in ((3, A), (4, B)):
            await kept.names.roll_back(TENANT, "ada", None, now=9)
            assert await kept.current() == expected

    @pytest.mark.parametrize("number", [None, 2, 10**6])
    async def test_a_rollback_to_no_version_is_refused(
        self, kept: Kept, number: int | None
    ) -> None:
        for _ in range(2):
            with pytest.raises(NotFound) as caught:
                await kept.names.roll_back(TENANT, "ada", number, now=9)
            assert caught.value.param == "version"
            await kept.put(A)
        assert await kept.versions() == [(1, A)]

    async def test_a_rollback_outlasts_an_edit_that_began_before(self, kept: Kept) -> None:
        await kept.put(A)
        await kept.put(B)
        edit = await kept.names.begin_edit(TENANT)
        await kept.names.roll_back(TENANT, "ada", None, now=9)
        with pytest.raises(Conflict):
            await kept.names.point(TENANT, "ada", C, edit=edit, now=9)
        assert await kept.current() == (3, A)

    async def test_only_the_newest_versions_are_kept(self, kept: Kept) -> None:
        await kept.put(C)
        for number in range(KEEP + 2):
            await kept.put([A, B][number % 2])
        assert [number for number, _ in await kept.versions()] == [4, 5, 6, 7, 8]
        assert await kept.names.aliases(TENANT, [C]) == {C: []}

    async def test_a_name_of_a_deleted_task_stands_for_nothing_until_it_is_pointed_again(
        self, kept: Kept
    ) -> None:
        for task_id in (A, B, A, C):
            await kept.put(task_id)
        await kept.store.delete(TENANT, C)
        await kept.names.forget_task(TENANT, C)
        assert await kept.current() is None
        assert await kept.versions() == [(1, A), (2, B), (3, A)]
        await kept.names.roll_back(TENANT, "ada", None, now=9)
        assert await kept.current() == (5, A)

    async def test_a_deleted_task_is_in_no_version(self, kept: Kept) -> None:
        for task_id in (A, B, A, B):
            await kept.put(task_id)
        await kept.put(A, name="bob")
        await kept.store.delete(TENANT, A)
        await kept.names.forget_task(TENANT, A)
        assert await kept.versions() == [(2, B), (4, B)]
        assert await kept.current() == (4, B)
        assert await kept.names.history(TENANT, "bob") is None
        assert await kept.names.aliases(TENANT, [A]) == {A: []}

    async def test_aliases_are_seen_from_their_tasks(self, kept: Kept) -> None:
        await kept.put(A, name="bob")
        for task_id in (A, B):
            await kept.put(task_id)
        assert await kept.names.aliases(TENANT, [B, A, C]) == {
            A: [
                Alias("ada", Version(1, A, 9), is_current=False),
                Alias("bob", Version(1, A, 9), is_current=True),
            ],
            B: [Alias("ada", Version(2, B, 9), is_current=True)],
            C: [],
        }
        assert await kept.names.aliases(TENANT, []) == {}

    async def test_a_deleted_name_is_gone_and_begins_anew(self, kept: Kept) -> None:
        await kept.put(A)
        await kept.put(B)
        assert await kept.names.delete(TENANT, "ada")
        assert await kept.current() is None
        assert await kept.versions() == []
        assert await kept.names.aliases(TENANT, [A, B]) == {A: [], B: []}
        assert (await kept.put(B)).version.number == 1

    async def test_tenants_have_names_of_their_own(self, kept: Kept) -> None:
        await kept.put(A)
        assert await kept.names.find("other", "ada") is None
        assert await kept.names.all("other") == {}
        assert await kept.names.aliases("other", [A]) == {A: []}
        assert not await kept.names.delete("other", "ada")
        with pytest.raises(NotFound):
            await kept.names.roll_back("other", "ada", 1, now=9)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    async def test_versions_come_back_from_an_export_in_any_order(
        self, kept: Kept, order: tuple[int, ...]
    ) -> None:
        exported = [
            Alias("ada", Version(2, A, 5), is_current=False),
            Alias("ada", Version(3, B, 6), is_current=False),
            Alias("ada", Version(7, A, 7), is_current=True),
        ]
        for _ in range(2):
            written = [await kept.names.restore(TENANT, exported[place]) for place in order]
            assert await kept.versions() == [(2, A), (3, B), (7, A)]
            assert await kept.current() == (7, A)
        assert written == [False] * 3
        assert await kept.put(B) == Change(Version(8, B, 9), is_new=True)

    async def test_an_old_export_does_not_undo_later_edits(self, kept: Kept) -> None:
        await kept.put(A)
        await kept.put(B)
        for number, task_id in ((1, A), (2, B)):
            alias = Alias("ada", Version(number, task_id, 9), is_current=number == 1)
            assert not await kept.names.restore(TENANT, alias)
        with pytest.raises(Conflict) as caught:
            await kept.names.restore(TENANT, Alias("ada", Version(1, C, 9), is_current=True))
        assert caught.value.param == "names"
        assert await kept.current() == (2, B)
