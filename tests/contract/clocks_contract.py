"""What the gateway relies on in the clocks. A subclass gives the fixture `clocks`."""

import asyncio
from itertools import count

from loragen.clocks import EXPECTED_TOKENS, GENERATED_WEIGHT, Clocks, Place, Work

LEASE_SECONDS = 0.6
MODEL = "demo"
_requests = count()


async def start(clocks: Clocks, tenant: str, prompt: int = 10, most: int = 0) -> Place:
    """Start a request that generates `most` tokens at most."""
    return await clocks.start(tenant, MODEL, f"request-{next(_requests)}", Work(prompt, most))


async def served(clocks: Clocks, tenant: str, tokens: int) -> None:
    """Start a request and end it after so many tokens of its prompt."""
    await clocks.settle(await start(clocks, tenant, tokens), Work(tokens, 0))


class ClocksContract:
    """The checks."""

    async def test_requests_of_one_tenant_line_up(self, clocks: Clocks) -> None:
        tags = [(await start(clocks, "acme", 10)).tag for _ in range(4)]
        assert tags == [0, 10, 20, 30]

    async def test_one_request_goes_ahead_of_anothers_hundred(self, clocks: Clocks) -> None:
        flood = [await start(clocks, "flood", 10) for _ in range(100)]
        for place in flood[:5]:
            await clocks.settle(place, Work(10, 0))
        late = await start(clocks, "late", 10)
        assert late.tag == flood[5].tag  # the equal of what is served next
        assert sum(place.tag > late.tag for place in flood[5:]) == 94

    async def test_time_away_is_no_credit(self, clocks: Clocks) -> None:
        await served(clocks, "back", 10)
        flood = [await start(clocks, "flood", 10) for _ in range(101)]
        for place in flood[:100]:
            await clocks.settle(place, Work(10, 0))
        back = [await start(clocks, "back", 10) for _ in range(3)]
        assert [place.tag for place in back] == [flood[100].tag + ahead for ahead in (0, 10, 20)]

    async def test_who_comes_when_nobody_is_there_equals_who_left_last(
        self, clocks: Clocks
    ) -> None:
        await served(clocks, "acme", 500)
        assert (await start(clocks, "new")).tag == 500
        assert (await start(clocks, "acme")).tag == 500

    async def test_who_has_had_more_stays_behind_until_the_others_have_too(
        self, clocks: Clocks
    ) -> None:
        running = await start(clocks, "other", 10)
        await served(clocks, "acme", 1_000)
        assert (await start(clocks, "acme")).tag == 1_000
        assert (await start(clocks, "other")).tag == running.tag + 10

    async def test_what_a_request_cost_replaces_the_guess(self, clocks: Clocks) -> None:
        place = await start(clocks, "acme", 100, most=1_000)
        assert place.charged == 100 + GENERATED_WEIGHT * EXPECTED_TOKENS
        await clocks.settle(place, Work(20, 5))
        assert (await start(clocks, "acme")).tag == place.tag + 20 + GENERATED_WEIGHT * 5

    async def test_what_nobody_knows_costs_the_guess(self, clocks: Clocks) -> None:
        place = await start(clocks, "acme", 100, most=7)
        await clocks.settle(place, None)
        assert (await start(clocks, "acme")).tag == 100 + GENERATED_WEIGHT * 7

    async def test_settled_twice_is_settled_once(self, clocks: Clocks) -> None:
        place = await start(clocks, "acme", 100)
        for _ in range(3):
            await clocks.settle(place, Work(10, 0))
        assert (await start(clocks, "acme")).tag == 10

    async def test_guesses_follow_what_a_tenants_requests_generate(self, clocks: Clocks) -> None:
        for _ in range(3):
            place = await start(clocks, "acme", 10, most=1_000)
            await clocks.settle(place, Work(10, 200))
        assert (await start(clocks, "acme", 10, most=1_000)).charged == 10 + 400
        assert (await start(clocks, "acme", 10, most=3)).charged == 10 + 6
        fresh = await start(clocks, "other", 10, most=1_000)
        assert fresh.charged == 10 + GENERATED_WEIGHT * EXPECTED_TOKENS

    async def test_a_refused_request_is_no_lesson(self, clocks: Clocks) -> None:
        place = await start(clocks, "acme", 10, most=1_000)
        await clocks.settle(place, Work(0, 0))
        again = await start(clocks, "acme", 10, most=1_000)
        assert (again.tag, again.charged) == (0, 10 + GENERATED_WEIGHT * EXPECTED_TOKENS)

    async def test_models_have_clocks_of_their_own(self, clocks: Clocks) -> None:
        await start(clocks, "acme", 500)
        other = await clocks.start("acme", "another", "request", Work(10, 0))
        assert other.tag == 0

    async def test_requests_of_a_dead_gateway_hold_no_time_back(self, clocks: Clocks) -> None:
        kept, dead = await start(clocks, "acme", 50), await start(clocks, "globex", 1)
        held = await start(clocks, "acme", 50)
        await clocks.settle(kept, Work(50, 0))
        assert (await start(clocks, "globex", 1)).now == dead.tag
        for _ in range(4):
            await asyncio.sleep(LEASE_SECONDS / 3)
            await clocks.renew([held])
        late = await start(clocks, "late")
        assert (late.tag, late.now) == (held.tag, held.tag)
        await clocks.settle(dead, Work(1_000, 0))  # it was not dead, only late: too late
        assert (await start(clocks, "globex")).tag == held.tag

    async def test_renewing_makes_nothing_run(self, clocks: Clocks) -> None:
        place = await start(clocks, "acme", 10)
        await clocks.settle(place, Work(10, 0))
        await clocks.renew([place])
        await clocks.renew([])
        await served(clocks, "other", 30)
        assert (await start(clocks, "late")).now == 40
