"""The limiter keeps one contract, with Redis and without."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragen.errors import StoreUnavailable
from loragen.limits import Limiter, Limits
from loragen.redis_client import connect
from loragen.redis_limiter import RedisLimiter
from tests.contract.limiter_contract import (
    LEASE_SECONDS,
    TENANT,
    WINDOW_SECONDS,
    LimiterContract,
)
from tests.fakes.memory_limiter import MemoryLimiter
from tests.fakes.valkey import Valkey

LIMIT = 20
STEP = st.one_of(
    st.tuples(st.just("take"), st.integers(1, 12)),
    st.tuples(st.just("settle"), st.integers(-12, 5)),
)
_tenants = count()


class TestMemoryLimiter(LimiterContract):
    """The fake."""

    @pytest.fixture
    def limiter(self) -> MemoryLimiter:
        return MemoryLimiter(window_seconds=WINDOW_SECONDS, lease_seconds=LEASE_SECONDS)

    @given(
        steps=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 8)), max_size=60),
        limit=st.integers(1, 20),
    )
    def test_no_sixty_seconds_ever_let_more_than_the_limit_through(
        self, steps: list[tuple[float, int]], limit: int
    ) -> None:
        now = 1_000.0
        limiter = MemoryLimiter(clock=lambda: now)
        admitted: list[tuple[float, int]] = []

        async def play() -> None:
            nonlocal now
            for pause, amount in steps:
                now += pause
                taken = await limiter.take(TENANT, "tokens", limit=limit, amount=amount)
                if taken.cell is not None:
                    admitted.append((now, amount))
                elif amount <= limit:
                    refused_at = now
                    now += taken.retry_seconds + 1e-6
                    retried = await limiter.take(TENANT, "tokens", limit=limit, amount=amount)
                    assert retried.cell is not None
                    assert now - refused_at <= 61.1
                    admitted.append((now, amount))

        asyncio.run(play())
        for start, _ in admitted:
            assert sum(n for at, n in admitted if start <= at < start + 60) <= limit


@pytest.mark.redis
class TestRedisLimiter(LimiterContract):
    """The real one."""

    @pytest.fixture
    async def limiter(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisLimiter]:
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisLimiter(
            client,
            namespace=namespace,
            window_seconds=WINDOW_SECONDS,
            lease_seconds=LEASE_SECONDS,
        )
        await client.aclose()

    async def test_every_key_ends_by_itself(
        self, limiter: RedisLimiter, valkey: Valkey, namespace: str
    ) -> None:
        limits = Limits(requests_per_minute=9, concurrent_requests=9)
        await limiter.admit(TENANT, limits, "a")
        await limiter.take(TENANT, "tokens", limit=9)
        await limiter.renew(TENANT, ["a"])
        names = [bytes(name) for name in valkey.client.scan_iter(f"{namespace}:*")]
        assert len(names) == 3
        assert all(0 < int(str(valkey.client.ttl(name))) <= 4 for name in names)

    async def test_two_clients_share_one_window(
        self, limiter: RedisLimiter, valkey: Valkey, namespace: str
    ) -> None:
        client = connect(valkey.url, timeout_seconds=5)
        other = RedisLimiter(client, namespace=namespace, window_seconds=WINDOW_SECONDS)
        both = (limiter, other)
        taken = await asyncio.gather(
            *(both[n % 2].take(TENANT, "tokens", limit=300, amount=7) for n in range(200))
        )
        assert sum(each.cell is not None for each in taken) == 300 // 7
        await client.aclose()

    async def test_no_redis_means_unavailable(self) -> None:
        client = connect("redis://127.0.0.1:1", timeout_seconds=1)
        away: Limiter = RedisLimiter(client, namespace="x")
        for call in (
            away.admit(TENANT, Limits(), "a"),
            away.renew(TENANT, ["a"]),
            away.leave(TENANT, "a"),
            away.take(TENANT, "tokens", limit=1),
            away.settle(TENANT, "tokens", cell=1, change=1),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        await client.aclose()


@pytest.mark.redis
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
def test_redis_and_a_sum_agree_whatever_is_taken_and_settled(
    valkey: Valkey, steps: list[tuple[str, int]]
) -> None:
    """Within a window nothing ends, so what is taken is a sum, cell by cell never below nothing."""
    tenant = f"t{next(_tenants)}"

    async def play() -> None:
        client = connect(valkey.url, timeout_seconds=5)
        limiter = RedisLimiter(client, namespace="property")
        cells: dict[int, int] = {}
        last: int | None = None
        for what, amount in steps:
            used = sum(cells.values())
            if what == "settle":
                if last is not None:
                    await limiter.settle(tenant, "tokens", cell=last, change=amount)
                    if last in cells:
                        cells[last] += amount
                        if cells[last] <= 0:
                            del cells[last]
                continue
            taken = await limiter.take(tenant, "tokens", limit=LIMIT, amount=amount)
            assert (taken.cell is not None) == (used + amount <= LIMIT)
            if taken.cell is not None:
                last = taken.cell
                cells[last] = cells.get(last, 0) + amount
            assert taken.level.remaining == max(0, LIMIT - sum(cells.values()))
        await client.aclose()

    asyncio.run(play())
