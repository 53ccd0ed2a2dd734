"""Who has had least goes first, as long as Redis answers; and nobody waits for it else."""

from loragen.limits import Admission
from loragen.tenants import Tenant
from server.gatekeeper import Entry, Gatekeeper
from server.precedence import Precedence
from server.tally import Estimate
from server.visit import Visit
from tests.fakes.memory_clocks import MemoryClocks
from tests.fakes.memory_limiter import MemoryLimiter

MODEL = "demo"
GATEKEEPER = Gatekeeper(MemoryLimiter(), is_open_without_store=True, retry_seconds=1)
ESTIMATE = Estimate(prompt_tokens=100, generated_tokens=0, is_open_ended=False)


class Setup:
    """A gateway's precedence over clocks in memory."""

    def __init__(self) -> None:
        self.now = 0.0
        self.clocks = MemoryClocks()
        self.precedence = Precedence(self.clocks, retry_seconds=2, clock=lambda: self.now)

    async def take(self, tenant: str) -> tuple[Visit, int]:
        visit = Visit(Tenant(id=tenant, created_at=0), GATEKEEPER, Entry(Admission(None, None)))
        return visit, await self.precedence.take(visit, MODEL, ESTIMATE)


async def test_who_has_had_least_goes_first() -> None:
    setup = Setup()
    flood = [await setup.take("flood") for _ in range(5)]
    _, late = await setup.take("late")
    assert [priority for _, priority in flood] == [0, 100, 200, 300, 400]
    assert late == 0


async def test_what_a_request_cost_is_charged_once_and_cached_tokens_are_not() -> None:
    setup = Setup()
    visit, _ = await setup.take("acme")
    usage = {"prompt_tokens": 90, "completion_tokens": 5}
    visit.tally.read({**usage, "prompt_tokens_details": {"cached_tokens": 60}})
    await setup.precedence.leave(visit)
    await setup.precedence.leave(visit)
    assert (await setup.take("acme"))[1] == 30 + 2 * 5


async def test_a_refused_request_costs_nothing_and_an_unknown_one_its_guess() -> None:
    setup = Setup()
    visit, _ = await setup.take("acme")
    visit.tally.void()
    await setup.precedence.leave(visit)
    unknown, priority = await setup.take("acme")
    assert priority == 0
    await setup.precedence.leave(unknown)
    assert (await setup.take("acme"))[1] == 100


async def test_without_redis_all_are_alike_and_nobody_waits_for_it_again() -> None:
    setup = Setup()
    flood = [await setup.take("flood") for _ in range(5)]
    for visit, _ in flood[:2]:
        visit.tally.read({"prompt_tokens": 100, "completion_tokens": 0})
        await setup.precedence.leave(visit)
    _, heard = await setup.take("acme")
    setup.clocks.is_away = True
    assert {(await setup.take(tenant))[1] for tenant in ("flood", "acme", "new")} == {heard}
    setup.clocks.is_away = False
    setup.now += 1.9
    visit, neutral = await setup.take("flood")
    assert (neutral, visit.place) == (heard, None)
    await setup.precedence.leave(visit)
    setup.now += 0.2
    assert (await setup.take("flood"))[1] == 500


async def test_without_redis_from_the_start_all_are_alike() -> None:
    setup = Setup()
    setup.clocks.is_away = True
    assert {(await setup.take(tenant))[1] for tenant in ("flood", "acme")} == {0}


async def test_an_outage_at_the_end_of_a_request_is_none_of_its_business() -> None:
    setup = Setup()
    visit, _ = await setup.take("acme")
    setup.clocks.is_away = True
    await setup.precedence.leave(visit)
    assert visit.place is None
