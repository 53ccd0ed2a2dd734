"""The line for the workers of an edge model: bounded, in order, and nobody is lost in it."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from loragen.errors import QueueFull, RecipeMismatch, WorkerUnavailable
from loragen.wire import WorkerInfo
from server.crew import Crew, Limits
from server.worker import Worker
from tests.fakes.fake_worker import POOL_ID, TEMPLATE_HASH

INFO = WorkerInfo(
    edge_model="demo", pool_id=POOL_ID, template_hash=TEMPLATE_HASH, backend="gate",
    max_model_len=100,
)  # fmt: skip


def crew_of(
    hosts: str,
    *,
    room: int = 1,
    waiting: int = 5,
    seconds: float = 5.0,
    of_tenant: int | None = None,
) -> Crew:
    limits = Limits(room, waiting, seconds, of_tenant)
    crew = Crew("demo", hosts, limits)
    for worker in crew.workers:
        crew.admit(worker, INFO)
    return crew


class Asking:
    """A request that takes a worker when it can, and holds it until released."""

    def __init__(
        self,
        crew: Crew,
        tried: set[str] | None = None,
        pool_id: str | None = None,
        tenant: str = "acme",
    ) -> None:
        self._release = asyncio.Event()
        self.worker: Worker | None = None
        self.task = asyncio.create_task(self._run(crew, tried or set(), pool_id, tenant))

    async def _run(self, crew: Crew, tried: set[str], pool_id: str | None, tenant: str) -> None:
        async with crew.worker(tried, pool_id=pool_id, tenant=tenant) as self.worker:
            await self._release.wait()

    async def end(self) -> None:
        self._release.set()
        await self.task


@asynccontextmanager
async def asking(
    crew: Crew, count: int, tenants: Sequence[str] = ()
) -> AsyncIterator[list[Asking]]:
    """Let so many ask, one after the other; they end with the block."""
    asked = []
    for tenant in tenants or ["acme"] * count:
        asked.append(Asking(crew, tenant=tenant))
        await settled()
    try:
        yield asked
    finally:
        for each in asked:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in asked), return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"loragen_{name}", labels) or 0.0


async def test_no_worker_gets_more_than_its_room_and_the_line_moves_in_order() -> None:
    crew = crew_of("ab", room=2)
    async with asking(crew, 7) as asked:
        assert [worker.outstanding for worker in crew.workers] == [2, 2]
        assert [each.worker is not None for each in asked] == [True] * 4 + [False] * 3
        assert metric("queue_requests", model="demo") == 3
        for position in range(3):
            await asked[position].end()
            await settled()
            assert [each.worker is not None for each in asked[4:]] == [
                number <= position for number in range(3)
            ]
        assert metric("queue_requests", model="demo") == 0
    assert [worker.outstanding for worker in crew.workers] == [0, 0]


async def test_a_full_line_refuses_and_says_when_to_come_back() -> None:
    crew = crew_of("a", waiting=1)
    before = metric("limits_rejected_total", limit="queue")
    async with asking(crew, 2):
        with pytest.raises(QueueFull) as caught:
            async with crew.worker():
                pass
        assert (caught.value.status, caught.value.code) == (429, "overloaded")
        assert caught.value.retry_after is not None
    assert metric("limits_rejected_total", limit="queue") == before + 1


async def test_who_waits_too_long_is_refused_and_leaves_the_line() -> None:
    crew = crew_of("a", seconds=0.01)
    async with asking(crew, 1) as (holding,):
        with pytest.raises(QueueFull):
            async with crew.worker():
                pass
        await holding.end()
    async with crew.worker() as worker:
        assert worker.outstanding == 1


async def test_who_leaves_the_line_is_passed_over() -> None:
    crew = crew_of("a")
    async with asking(crew, 3) as (holding, leaving, staying):
        leaving.task.cancel()
        await settled()
        await holding.end()
        await settled()
        assert staying.worker is not None
    assert crew.workers[0].outstanding == 0


async def test_who_leaves_with_a_worker_just_given_to_it_gives_it_on() -> None:
    crew = crew_of("a")
    async with asking(crew, 3) as (holding, leaving, staying):
        holding._release.set()
        await asyncio.sleep(0)
        assert len(crew._line) == 1  # its turn came, and it does not know yet
        leaving.task.cancel()
        await settled()
        assert leaving.worker is None
        assert staying.worker is not None
    assert crew.workers[0].outstanding == 0


async def test_a_newcomer_does_not_overtake_the_line() -> None:
    crew = crew_of("a")
    async with asking(crew, 2) as (holding, first):
        holding._release.set()
        newcomer = Asking(crew)
        await settled()
        assert first.worker is not None
        assert newcomer.worker is None
        newcomer.task.cancel()


async def test_without_a_healthy_worker_those_in_line_are_told_at_once() -> None:
    crew = crew_of("a")
    async with asking(crew, 3) as (_, first, second):
        crew.lose(crew.workers[0], "gone")
        for each in (first, second):
            with pytest.raises(WorkerUnavailable):
                await each.task
        with pytest.raises(WorkerUnavailable):
            async with crew.worker():
                pass


async def test_a_worker_that_comes_takes_the_line_up() -> None:
    crew = crew_of("ab")
    crew.lose(crew.workers[1], "gone")
    async with asking(crew, 2) as (_, waiting):
        assert waiting.worker is None
        crew.admit(crew.workers[1], INFO)
        await settled()
        assert waiting.worker is crew.workers[1]


async def test_one_who_waits_for_another_worker_holds_up_nobody() -> None:
    crew = crew_of("ab")
    async with AsyncExitStack() as held:
        await held.enter_async_context(crew.worker({"b"}))
        picky = Asking(crew, {"b"})
        await settled()
        assert picky.worker is None
        newcomer = Asking(crew)
        await settled()
        assert newcomer.worker is crew.workers[1]
        for each in (picky, newcomer):
            each.task.cancel()
        await settled()


async def test_a_question_that_costs_nothing_waits_for_nothing() -> None:
    crew = crew_of("a", waiting=0)
    async with crew.worker():
        assert crew.any() is crew.workers[0]


def test_a_worker_lost_again_and_again_stays_away_longer_and_longer() -> None:
    now = 0.0
    limits = Limits(max_outstanding=1, max_waiting=0, max_wait_seconds=1)
    crew = Crew("demo", "ab", limits, clock=lambda: now)
    flapping, steady = crew.workers
    crew.admit(flapping, INFO)
    crew.admit(steady, INFO)
    away = []
    for _ in range(8):
        crew.lose(flapping, "dropped")
        since = now
        crew.admit(flapping, INFO)
        while flapping not in crew.healthy:
            now += 1
        away.append(now - since)
    assert away == [0, 1, 2, 4, 8, 16, 30, 30]
    now += 60
    crew.lose(flapping, "dropped")
    crew.admit(flapping, INFO)
    assert flapping in crew.healthy


def test_a_worker_in_exile_serves_when_the_last_other_is_lost() -> None:
    crew = crew_of("ab")
    flapping, steady = crew.workers
    for _ in range(3):
        crew.lose(flapping, "dropped")
        crew.admit(flapping, INFO)
    assert crew.healthy == [steady]
    crew.lose(steady, "draining")
    assert crew.healthy == [flapping]


def test_the_only_worker_left_is_taken_as_soon_as_it_answers() -> None:
    crew = crew_of("a")
    for _ in range(5):
        crew.lose(crew.workers[0], "dropped")
        assert crew.healthy == []
        crew.admit(crew.workers[0], INFO)
        assert crew.healthy == crew.workers


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 4), st.sampled_from([None, 1, 2]))
async def test_whatever_happens_no_place_is_lost(
    seed: int, room: int, waiting: int, of_tenant: int | None
) -> None:
    chance = random.Random(seed)
    crew = crew_of("abc", room=room, waiting=waiting, of_tenant=of_tenant)
    asked: list[Asking] = []
    for _ in range(40):
        match chance.choice(["ask", "ask", "ask", "end", "leave", "lose", "admit", "tick"]):
            case "ask":
                tried = set(chance.sample("abc", chance.choice([0, 0, 1])))
                asked.append(Asking(crew, tried, tenant=chance.choice("xyz")))
            case "end" if asked:
                chance.choice(asked)._release.set()
            case "leave" if asked:
                chance.choice(asked).task.cancel()
            case "lose":
                crew.lose(chance.choice(crew.workers), "gone")
            case "admit":
                crew.admit(chance.choice(crew.workers), INFO)
            case _:
                await asyncio.sleep(0)
        for worker in crew.workers:
            assert 0 <= worker.outstanding <= room
            assert worker.outstanding == worker.of_tenants.total()
            assert max(worker.of_tenants.values(), default=0) <= (of_tenant or room)
        assert len(crew._line) <= waiting
    for each in asked:
        each._release.set()
    await settled()
    for each in asked:
        each.task.cancel()
    await asyncio.gather(*(each.task for each in asked), return_exceptions=True)
    assert [worker.outstanding for worker in crew.workers] == [0, 0, 0]
    assert not crew._line


def crew_of_pools(hosts: str, *, room: int = 1, waiting: int = 5) -> Crew:
    """Return a crew whose every worker holds the pool of its own letter."""
    crew = crew_of(hosts, room=room, waiting=waiting)
    for worker in crew.workers:
        crew.admit(worker, INFO.model_copy(update={"pool_id": worker.url}))
    return crew


async def test_a_recipe_goes_to_workers_of_its_pool_alone() -> None:
    crew = crew_of_pools("abb", room=100)
    assert crew.pools == ("a", "b")
    for pool_id in "ab" * 20:
        async with crew.worker(pool_id=pool_id) as worker:
            assert worker.url == pool_id
    both = {(await taken(crew)).url for _ in range(100)}
    assert both == {"a", "b"}


async def taken(crew: Crew) -> Worker:
    async with crew.worker() as worker:
        return worker


async def test_without_a_worker_of_its_pool_a_recipe_is_refused_and_not_kept_waiting() -> None:
    crew = crew_of_pools("ab")
    with pytest.raises(RecipeMismatch):
        async with crew.worker(pool_id="c"):
            pass
    with pytest.raises(RecipeMismatch):
        async with crew.worker({"a"}, pool_id="a"):
            pass
    for worker in crew.workers:
        crew.lose(worker, "gone")
    with pytest.raises(WorkerUnavailable):
        async with crew.worker(pool_id="a"):
            pass


async def test_nobody_waits_behind_those_who_wait_for_another_pool() -> None:
    crew = crew_of_pools("ab", waiting=2)
    busy = Asking(crew, pool_id="a")
    await settled()
    waiting = [Asking(crew, pool_id="a") for _ in range(2)]
    await settled()
    async with crew.worker(pool_id="b") as worker:
        assert worker.url == "b"
    await busy.end()
    await settled()
    assert waiting[0].worker is not None
    assert waiting[1].worker is None
    for each in waiting:
        await each.end()


async def test_those_in_line_for_a_pool_that_leaves_are_told_and_others_wait_on() -> None:
    crew = crew_of_pools("ab")
    busy = [Asking(crew, pool_id=pool_id) for pool_id in "ab"]
    await settled()
    waiting = [Asking(crew, pool_id=pool_id) for pool_id in "abab"]
    await settled()
    crew.lose(crew.workers[0], "gone")
    await settled()
    assert [isinstance(each.task.exception(), RecipeMismatch) for each in waiting[::2]] == [
        True
    ] * 2
    await busy[1].end()
    await settled()
    assert waiting[1].worker is not None
    for each in (waiting[1], waiting[3], busy[0]):
        await each.end()


async def test_a_worker_in_exile_serves_a_pool_that_no_other_holds() -> None:
    now = 0.0
    limits = Limits(max_outstanding=1, max_waiting=0, max_wait_seconds=5)
    crew = Crew("demo", "ab", limits, clock=lambda: now)
    a, b = crew.workers
    for _ in range(3):
        crew.admit(a, INFO.model_copy(update={"pool_id": "a"}))
        crew.lose(a, "crashed")
    crew.admit(a, INFO.model_copy(update={"pool_id": "a"}))
    crew.admit(b, INFO.model_copy(update={"pool_id": "b"}))
    assert crew.healthy == [b]
    async with crew.worker(pool_id="a") as worker:
        assert worker is a


async def test_tenants_in_line_take_turns_however_many_one_has_there() -> None:
    crew = crew_of("a", waiting=20)
    tenants = [*["flood"] * 8, "one", "two", "two"]
    async with asking(crew, 11, tenants) as asked:
        order = []
        holding = asked[0]
        for _ in range(10):
            await holding.end()
            await settled()
            (holding,) = [each for each in asked if each.worker and not each.task.done()]
            order.append(tenants[asked.index(holding)])
    assert order == ["flood", "one", "two", "flood", "two", *["flood"] * 5]


async def test_in_a_full_line_who_has_most_there_makes_room_for_another() -> None:
    crew = crew_of("a", waiting=4)
    before = metric("limits_rejected_total", limit="queue")
    async with asking(crew, 6, [*["flood"] * 5, "late"]) as asked:
        assert [each.task.done() for each in asked] == [False] * 4 + [True, False]
        assert isinstance(asked[4].task.exception(), QueueFull)
        with pytest.raises(QueueFull):
            async with crew.worker(tenant="flood"):
                pass
        await asked[0].end()
        await settled()
        await asked[1].end()
        await settled()
        assert asked[5].worker is not None
    assert metric("limits_rejected_total", limit="queue") == before + 2


async def test_a_share_leaves_room_at_each_worker_for_another_tenant() -> None:
    crew = crew_of("ab", room=4, of_tenant=3, waiting=10)
    async with asking(crew, 10, ["flood"] * 10) as flood:
        assert [worker.outstanding for worker in crew.workers] == [3, 3]
        async with crew.worker(tenant="late"):
            assert sum(each.worker is not None for each in flood) == 6
        assert sum(each.worker is not None for each in flood) == 6
        await flood[0].end()
        await settled()
        assert sum(each.worker is not None for each in flood) == 7
