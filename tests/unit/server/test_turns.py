"""So much work at once, tenants in turns, and no room is lost whatever is cancelled."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragen.errors import Overloaded
from server.turns import Turns


class Work:
    """A piece of work that goes on until it is told to end."""

    def __init__(self, turns: Turns, tenant: str) -> None:
        self.tenant = tenant
        self.is_running = False
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns))

    async def _run(self, turns: Turns) -> None:
        async with turns.turn(self.tenant):
            self.is_running = True
            try:
                await self.end.wait()
            finally:
                self.is_running = False


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def begin(turns: Turns, tenant: str, count: int = 1) -> list[Work]:
    """Let a tenant bring work, piece by piece."""
    works = []
    for _ in range(count):
        works.append(Work(turns, tenant))
        await settled()
    return works


async def close(works: list[Work]) -> None:
    for each in works:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in works), return_exceptions=True)


async def test_ten_thousand_of_one_delay_anothers_first_by_one_piece() -> None:
    turns = Turns(1, max_waiting=20_000)
    flood = [Work(turns, "flood") for _ in range(10_000)]
    await settled()
    (first,) = await begin(turns, "late")
    ended = 0
    while not first.is_running:
        (running,) = [each for each in flood if each.is_running]
        running.end.set()
        ended += 1
        await settled()
    assert ended <= 2
    await close([*flood, first])


async def test_no_more_at_once_than_there_is_room_for() -> None:
    turns = Turns(3)
    works = [*await begin(turns, "a", 4), *await begin(turns, "b", 4)]
    assert [each.is_running for each in works] == [True] * 3 + [False] * 5
    works[0].end.set()
    await settled()
    assert sum(each.is_running for each in works) == 3
    await close(works)


async def test_who_has_most_waiting_makes_room_for_another() -> None:
    turns = Turns(1, max_waiting=3)
    flood = await begin(turns, "flood", 4)
    (late,) = await begin(turns, "late")
    with pytest.raises(Overloaded):
        await flood[3].task
    with pytest.raises(Overloaded):
        async with turns.turn("flood"):
            pass
    assert not late.task.done()
    await close([*flood, late])


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 5))
async def test_whatever_happens_no_room_is_lost(seed: int, at_once: int, waiting: int) -> None:
    chance = random.Random(seed)
    turns = Turns(at_once, max_waiting=waiting)
    works: list[Work] = []
    for _ in range(50):
        match chance.choice(["come", "come", "end", "cancel", "tick"]):
            case "come":
                works.append(Work(turns, chance.choice("abc")))
            case "end" if works:
                chance.choice(works).end.set()
            case "cancel" if works:
                chance.choice(works).task.cancel()
            case _:
                await settled()
        assert sum(each.is_running for each in works) <= at_once
    for _ in range(waiting + at_once):  # each may hand its turn on to one that has ended, too
        await settled()
    unfinished = [each for each in works if not each.task.done()]
    assert sum(each.is_running for each in unfinished) == min(at_once, len(unfinished))
    await close(works)
    fresh = await begin(turns, "a", at_once)
    assert all(each.is_running for each in fresh)
    await close(fresh)
