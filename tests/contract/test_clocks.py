"""The clocks keep one contract, with Redis and without, and shares are fair by them."""

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragen.clocks import Clocks, Place, Work
from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from loragen.redis_clocks import KEEP_SECONDS, RedisClocks
from tests.contract.clocks_contract import LEASE_SECONDS, MODEL, ClocksContract, start
from tests.fakes.memory_clocks import MemoryClocks
from tests.fakes.valkey import Valkey

TENANTS = ("acme", "globex", "initech")
STEP = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(TENANTS), st.integers(0, 300), st.integers(0, 900)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 300), st.integers(0, 900)),
    st.tuples(st.just("lose"), st.integers(0, 9), st.just(0), st.just(0)),
)
_namespaces = count()


class TestMemoryClocks(ClocksContract):
    """The fake."""

    @pytest.fixture
    def clocks(self) -> MemoryClocks:
        return MemoryClocks(lease_seconds=LEASE_SECONDS)


@pytest.mark.redis
class TestRedisClocks(ClocksContract):
    """The real ones."""

    @pytest.fixture
    async def clocks(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisClocks]:
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisClocks(client, namespace=namespace, lease_seconds=LEASE_SECONDS)
        await client.aclose()

    async def test_every_key_ends_by_itself(
        self, clocks: RedisClocks, valkey: Valkey, namespace: str
    ) -> None:
        place = await start(clocks, "acme")
        await start(clocks, "acme")
        await clocks.settle(place, Work(10, 20))
        names = [bytes(name) for name in valkey.client.scan_iter(f"{namespace}:*")]
        assert len(names) == 4
        assert all(0 < int(str(valkey.client.ttl(name))) <= KEEP_SECONDS for name in names)

    async def test_two_gateways_share_one_time(
        self, clocks: RedisClocks, valkey: Valkey, namespace: str
    ) -> None:
        client = connect(valkey.url, timeout_seconds=5)
        both = (clocks, RedisClocks(client, namespace=namespace))
        places = await asyncio.gather(*(start(both[n % 2], TENANTS[n % 3], 7) for n in range(120)))
        tags = Counter((place.tenant, place.tag) for place in places)
        assert tags == Counter((tenant, 7 * n) for tenant in TENANTS for n in range(40))
        await client.aclose()

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        away: Clocks = RedisClocks(client, namespace="x")
        place = Place("acme", MODEL, "a", 0, 0, 0)
        for call in (
            away.start("acme", MODEL, "a", Work(1, 1)),
            away.settle(place, None),
            away.renew([place]),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await client.aclose()


@pytest.mark.redis
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=30))
def test_redis_and_memory_agree_whatever_happens(
    valkey: Valkey, steps: list[tuple[str, str | int, int, int]]
) -> None:
    async def play() -> None:
        client = connect(valkey.url, timeout_seconds=5)
        real = RedisClocks(client, namespace=f"agree-{next(_namespaces)}")
        both: tuple[Clocks, Clocks] = (real, MemoryClocks())
        places: list[tuple[Place, Place]] = []
        for number, (what, which, prompt, generated) in enumerate(steps):
            if what == "start":
                work = Work(prompt, generated)
                one, other = [
                    await clocks.start(str(which), MODEL, str(number), work) for clocks in both
                ]
                assert one == other
                places.append((one, other))
            elif places:
                work_done = None if what == "lose" else Work(prompt, generated)
                ended = places[int(which) % len(places)]
                for clocks, place in zip(both, ended, strict=True):
                    await clocks.settle(place, work_done)
        await client.aclose()

    asyncio.run(play())


@pytest.mark.parametrize("lengths", [(10, 10), (10, 200), (50, 300)])
async def test_two_that_always_wait_get_the_same_tokens(lengths: tuple[int, int]) -> None:
    """However many requests each has waiting, and however long these are, once that is known.

    What waits keeps the tag of its first guess, and what comes next makes up for it: the first
    two times that the whole line has gone by do not count.
    """
    clocks, waiting = MemoryClocks(), Counter({"few": 3, "many": 300})
    length = dict(zip(waiting, lengths, strict=True))
    line: list[tuple[int, int, Place]] = []
    arrivals = count()
    had: Counter[str] = Counter()

    async def arrive(tenant: str) -> None:
        place = await clocks.start(tenant, MODEL, str(next(arrivals)), Work(20, 4_096))
        heapq.heappush(line, (place.tag, int(place.request), place))

    for tenant, requests in waiting.items():
        for _ in range(requests):
            await arrive(tenant)
    for number in range(12_000):
        _, _, place = heapq.heappop(line)
        await clocks.settle(place, Work(20, length[place.tenant]))
        if number >= 7_000:
            had[place.tenant] += 20 + 2 * length[place.tenant]
        await arrive(place.tenant)
    assert 0.9 < had["few"] / had["many"] < 1.1


async def test_a_flood_of_a_hundred_times_as_many_delays_another_by_one_request() -> None:
    """Ten tenants flood; one sends a request now and then, and waits for one of each at most."""
    clocks, arrivals = MemoryClocks(), count()
    line: list[tuple[int, int, Place]] = []
    waits = []

    async def arrive(tenant: str) -> Place:
        place = await clocks.start(tenant, MODEL, str(next(arrivals)), Work(20, 64))
        heapq.heappush(line, (place.tag, int(place.request), place))
        return place

    for _ in range(100):
        for tenant in range(10):
            await arrive(f"flood-{tenant}")
    for _ in range(50):
        mine, wait = await arrive("mine"), 0
        while (place := heapq.heappop(line)[2]) is not mine:
            await clocks.settle(place, Work(20, 64))
            await arrive(place.tenant)
            wait += 1
        await clocks.settle(mine, Work(20, 64))
        waits.append(wait)
    assert max(waits) <= 10
