"""What the gatekeeper relies on. A subclass gives the fixture `limiter`, with a short window."""

import asyncio
import time
from uuid import uuid4

from loragen.limits import Limiter, Limits

TENANT = "acme"
WINDOW_SECONDS = 2
LEASE_SECONDS = 0.5


def lease() -> str:
    return uuid4().hex


class LimiterContract:
    """The checks."""

    async def test_a_window_gives_its_limit_and_not_more(self, limiter: Limiter) -> None:
        taken = [await limiter.take(TENANT, "tokens", limit=10, amount=4) for _ in range(3)]
        assert [each.level.remaining for each in taken] == [6, 2, 2]
        assert [each.cell is None for each in taken] == [False, False, True]
        assert 0 < taken[2].retry_seconds <= WINDOW_SECONDS + 1
        assert (await limiter.take(TENANT, "tokens", limit=10, amount=2)).level.remaining == 0

    async def test_two_hundred_at_once_take_the_limit_exactly(self, limiter: Limiter) -> None:
        taken = await asyncio.gather(
            *(limiter.take(TENANT, "compiles", limit=50) for _ in range(200))
        )
        assert sum(each.cell is not None for each in taken) == 50

    async def test_tenants_and_windows_do_not_share(self, limiter: Limiter) -> None:
        assert (await limiter.take(TENANT, "tokens", limit=1)).cell is not None
        assert (await limiter.take(TENANT, "compiles", limit=1)).cell is not None
        assert (await limiter.take("globex", "tokens", limit=1)).cell is not None
        assert (await limiter.take(TENANT, "tokens", limit=1)).cell is None

    async def test_a_window_slides_and_says_truly_when(self, limiter: Limiter) -> None:
        await limiter.take(TENANT, "tokens", limit=10, amount=10)
        refused = await limiter.take(TENANT, "tokens", limit=10, amount=1)
        assert refused.cell is None
        assert abs(refused.retry_seconds - refused.level.reset_seconds) < 0.1
        await asyncio.sleep(refused.retry_seconds / 2)
        assert (await limiter.take(TENANT, "tokens", limit=10)).cell is None
        await asyncio.sleep(refused.retry_seconds / 2 + 0.05)
        again = await limiter.take(TENANT, "tokens", limit=10)
        assert (again.cell is not None, again.level.remaining) == (True, 9)

    async def test_what_was_not_used_is_given_back(self, limiter: Limiter) -> None:
        taken = await limiter.take(TENANT, "tokens", limit=100, amount=80)
        assert taken.cell is not None
        await limiter.settle(TENANT, "tokens", cell=taken.cell, change=-70)
        assert (await limiter.take(TENANT, "tokens", limit=100, amount=90)).cell is not None

    async def test_what_was_used_beyond_is_owed(self, limiter: Limiter) -> None:
        taken = await limiter.take(TENANT, "tokens", limit=100, amount=10)
        assert taken.cell is not None
        await limiter.settle(TENANT, "tokens", cell=taken.cell, change=200)
        refused = await limiter.take(TENANT, "tokens", limit=100, amount=1)
        assert (refused.cell, refused.level.remaining) == (None, 0)

    async def test_a_cell_that_has_ended_gives_nothing_back(self, limiter: Limiter) -> None:
        await limiter.settle(TENANT, "tokens", cell=int(time.time()) - 1_000, change=-50)
        taken = await limiter.take(TENANT, "tokens", limit=10, amount=5)
        assert taken.level.remaining == 5

    async def test_requests_are_counted_and_refused(self, limiter: Limiter) -> None:
        limits = Limits(requests_per_minute=2, tokens_per_minute=10)
        await limiter.take(TENANT, "tokens", limit=10, amount=3)
        admissions = [await limiter.admit(TENANT, limits, lease()) for _ in range(3)]
        assert [each.refused_by for each in admissions] == [None, None, "requests"]
        assert [each.requests and each.requests.remaining for each in admissions] == [1, 0, 0]
        assert {each.tokens and each.tokens.remaining for each in admissions} == {7}
        assert 0 < admissions[2].retry_seconds <= WINDOW_SECONDS + 1

    async def test_without_a_limit_nothing_is_said_of_it(self, limiter: Limiter) -> None:
        admission = await limiter.admit(TENANT, Limits(concurrent_requests=1), lease())
        assert (admission.requests, admission.tokens) == (None, None)

    async def test_so_many_run_at_once_and_one_that_leaves_makes_room(
        self, limiter: Limiter
    ) -> None:
        limits = Limits(concurrent_requests=2, requests_per_minute=100)
        one, two, three = lease(), lease(), lease()
        assert (await limiter.admit(TENANT, limits, one)).refused_by is None
        assert (await limiter.admit(TENANT, limits, two)).refused_by is None
        refused = await limiter.admit(TENANT, limits, three)
        assert (refused.refused_by, refused.retry_seconds) == ("concurrency", 1.0)
        assert refused.requests is not None
        assert refused.requests.remaining == 98  # one that is refused is not counted
        await limiter.leave(TENANT, one)
        await limiter.leave(TENANT, one)
        assert (await limiter.admit(TENANT, limits, three)).refused_by is None

    async def test_two_hundred_at_once_run_as_many_as_may(self, limiter: Limiter) -> None:
        limits = Limits(concurrent_requests=20, requests_per_minute=1_000)
        admissions = await asyncio.gather(
            *(limiter.admit(TENANT, limits, lease()) for _ in range(200))
        )
        assert sum(each.refused_by is None for each in admissions) == 20

    async def test_the_lease_of_a_dead_gateway_ends_and_a_renewed_one_does_not(
        self, limiter: Limiter
    ) -> None:
        limits = Limits(concurrent_requests=2)
        kept, dead = lease(), lease()
        await limiter.admit(TENANT, limits, kept)
        await limiter.admit(TENANT, limits, dead)
        for _ in range(4):
            await asyncio.sleep(LEASE_SECONDS / 3)
            await limiter.renew(TENANT, [kept])
        assert (await limiter.admit(TENANT, limits, lease())).refused_by is None
        assert (await limiter.admit(TENANT, limits, lease())).refused_by == "concurrency"

    async def test_a_renewal_that_comes_late_brings_no_ended_request_back(
        self, limiter: Limiter
    ) -> None:
        limits, ended = Limits(concurrent_requests=1), lease()
        await limiter.admit(TENANT, limits, ended)
        await limiter.leave(TENANT, ended)
        await limiter.renew(TENANT, [ended])
        assert (await limiter.admit(TENANT, limits, lease())).refused_by is None

    async def test_nothing_may_be_what_a_tenant_may(self, limiter: Limiter) -> None:
        none = Limits(requests_per_minute=0)
        assert (await limiter.admit(TENANT, none, lease())).refused_by == "requests"
        none = Limits(concurrent_requests=0)
        assert (await limiter.admit(TENANT, none, lease())).refused_by == "concurrency"
        assert (await limiter.take(TENANT, "compiles", limit=0)).cell is None
