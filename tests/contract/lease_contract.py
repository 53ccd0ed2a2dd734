"""What the gateway relies on in leases. A subclass gives the fixture `leases`."""

import asyncio

import pytest

from loragen.leases import Leases, hold, keep

NAME = "compile:default:task_a"


class LeaseContract:
    """The checks."""

    async def test_one_of_many_takes_it(self, leases: Leases) -> None:
        taken = await asyncio.gather(
            *(leases.acquire(NAME, str(number), seconds=5) for number in range(20))
        )
        assert sorted(taken) == [False] * 19 + [True]

    async def test_names_are_apart(self, leases: Leases) -> None:
        assert await leases.acquire("a", "1", seconds=5)
        assert await leases.acquire("b", "2", seconds=5)

    async def test_only_its_holder_prolongs_it_and_gives_it_back(self, leases: Leases) -> None:
        assert not await leases.release(NAME, "holder")
        await leases.acquire(NAME, "holder", seconds=5)
        assert not await leases.renew(NAME, "other", seconds=5)
        assert not await leases.release(NAME, "other")
        assert not await leases.acquire(NAME, "other", seconds=5)
        assert await leases.renew(NAME, "holder", seconds=5)
        assert await leases.release(NAME, "holder")
        assert await leases.acquire(NAME, "other", seconds=5)

    async def test_it_ends_by_itself_unless_prolonged(self, leases: Leases) -> None:
        await leases.acquire(NAME, "holder", seconds=0.5)
        assert await leases.renew(NAME, "holder", seconds=2)
        await asyncio.sleep(1)
        assert not await leases.acquire(NAME, "other", seconds=5)
        await asyncio.sleep(1.1)
        assert await leases.acquire(NAME, "other", seconds=5)
        assert not await leases.renew(NAME, "holder", seconds=5)
        assert not await leases.release(NAME, "holder")

    async def test_it_can_be_seen_while_it_is_held(self, leases: Leases) -> None:
        assert await leases.held([]) == set()
        await leases.acquire("a", "1", seconds=5)
        await leases.acquire("b", "2", seconds=0.05)
        assert await leases.held(["a", "b", "c"]) == {"a", "b"}
        await asyncio.sleep(0.1)
        assert await leases.held(["b", "a"]) == {"a"}
        await leases.release("a", "1")
        assert await leases.held(["a"]) == set()

    async def test_a_taken_lease_is_kept_and_given_back(self, leases: Leases) -> None:
        await leases.acquire(NAME, "holder", seconds=0.15)
        async with keep(leases, NAME, "holder", seconds=0.15):
            await asyncio.sleep(0.4)
            assert await leases.held([NAME]) == {NAME}
        assert await leases.held([NAME]) == set()

    async def test_holders_follow_each_other_one_at_a_time(self, leases: Leases) -> None:
        inside: list[int] = []

        async def work(number: int) -> None:
            async with hold(leases, NAME):
                inside.append(number)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.remove(number)

        await asyncio.gather(*(work(number) for number in range(5)))

    async def test_work_longer_than_the_lease_keeps_it(self, leases: Leases) -> None:
        async with hold(leases, NAME, seconds=1.5):
            await asyncio.sleep(2)
            assert not await leases.acquire(NAME, "other", seconds=5)
        assert await leases.acquire(NAME, "other", seconds=5)

    async def test_work_that_fails_gives_it_back(self, leases: Leases) -> None:
        with pytest.raises(RuntimeError):
            async with hold(leases, NAME):
                raise RuntimeError
        assert await leases.acquire(NAME, "other", seconds=5)

    async def test_one_who_leaves_the_line_holds_nothing(self, leases: Leases) -> None:
        async with hold(leases, NAME):
            waiting = asyncio.create_task(hold(leases, NAME).__aenter__())
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert await leases.acquire(NAME, "other", seconds=5)
