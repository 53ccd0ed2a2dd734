"""Who a request is from, and how long a key that is known is good without Redis."""

import asyncio
import time

import pytest

from loragen.api_key import ApiKey
from loragen.errors import StoreUnavailable, Unauthorized
from loragen.invalidations import WHOLE_TENANT
from loragen.limits import Limits
from loragen.tenants import Bearer
from server.authentication import Authenticator
from tests.contract.tenants_contract import ACME, GLOBEX, record_of
from tests.fakes.memory_invalidations import MemoryInvalidations
from tests.fakes.memory_tenants import MemoryTenants

TTL = 2.0


class Bench:
    """An authenticator over a fake store, with a key of tenant acme and a clock of its own."""

    def __init__(
        self, *, is_open: bool = False, entries: int = 10, limits: Limits | None = None
    ) -> None:
        self.now = 0.0
        self.tenants = MemoryTenants()
        self.authenticator = Authenticator(
            self.tenants,
            is_open=is_open,
            limits=limits or Limits(),
            entries=entries,
            ttl_seconds=TTL,
            clock=lambda: self.now,
        )
        self.key = ApiKey.make()

    async def tenant(self, key: ApiKey | None = None) -> str:
        shown = f"Bearer {(key or self.key).text}"
        return (await self.authenticator.authenticate(shown)).id

    async def refusal(self, authorization: str) -> str:
        with pytest.raises(Unauthorized) as caught:
            await self.authenticator.authenticate(authorization)
        return caught.value.message


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.tenants.create(ACME)
    await made.tenants.add_key(record_of(made.key))
    return made


async def test_a_good_key_is_its_tenant_whatever_the_case_of_the_scheme(bench: Bench) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert await bench.authenticator.authenticate(f"{scheme} {bench.key.text}") == ACME


async def test_a_known_key_is_asked_for_once_per_time_to_live(bench: Bench) -> None:
    for moment in (0.0, TTL - 0.1, TTL, 2 * TTL - 0.1):
        bench.now = moment
        await bench.tenant()
    assert bench.tenants.finds == 2


async def test_bad_keys_of_every_kind_are_refused_in_the_same_words_and_always_asked_for(
    bench: Bench,
) -> None:
    expired, revoked, unknown = (ApiKey.make() for _ in range(3))
    past = int(time.time()) - 1
    await bench.tenants.add_key(record_of(expired).model_copy(update={"expires_at": past}))
    await bench.tenants.add_key(record_of(revoked).model_copy(update={"revoked_at": past}))
    forged = ApiKey(bench.key.id, f"lg_{bench.key.id}_{'a' * 32}")
    bad = (expired, revoked, unknown, forged)
    said = {await bench.refusal(f"Bearer {key.text}") for key in bad for _ in range(2)}
    assert len(said) == 1
    asked = bench.tenants.finds
    assert asked == 7  # the forged one's id is good, and remembered
    assert await bench.refusal("Bearer sk-something") in said
    assert bench.tenants.finds == asked


async def test_a_forged_key_is_refused_although_its_id_is_remembered(bench: Bench) -> None:
    await bench.tenant()
    await bench.refusal(f"Bearer lg_{bench.key.id}_{'a' * 32}")
    assert await bench.tenant() == "acme"


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer ", "Basic YTpi"])
async def test_without_a_key_it_says_how_to_send_one(bench: Bench, shown: str) -> None:
    assert "Authorization: Bearer" in await bench.refusal(shown)


async def test_the_open_tenant_is_whoever_shows_no_key_of_ours() -> None:
    bench = Bench(is_open=True)
    for shown in ("", "Bearer none", "Bearer sk-x", "Basic YTpi"):
        assert (await bench.authenticator.authenticate(shown)).id == "default"
    assert bench.tenants.finds == 0
    await bench.refusal("Bearer lg_mistyped")
    await bench.tenants.create(ACME)
    await bench.tenants.add_key(record_of(bench.key))
    assert await bench.tenant() == "acme"


async def test_word_of_a_revocation_ends_what_is_remembered(bench: Bench) -> None:
    invalidations = MemoryInvalidations()
    following = asyncio.create_task(bench.authenticator.follow(invalidations))
    await asyncio.sleep(0)  # until it follows
    await bench.tenant()
    await bench.tenants.revoke("acme", bench.key.id, now=1)
    await invalidations.publish("globex", WHOLE_TENANT)
    await invalidations.publish("acme", "task_x")
    assert await bench.tenant() == "acme"
    await invalidations.publish("acme", WHOLE_TENANT)
    await bench.refusal(f"Bearer {bench.key.text}")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_where_the_word_is_lost_time_ends_it(bench: Bench) -> None:
    await bench.tenant()
    await bench.tenants.revoke("acme", bench.key.id, now=1)
    bench.now = TTL
    await bench.refusal(f"Bearer {bench.key.text}")


async def test_an_expired_key_is_refused_although_it_is_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ApiKey.make()
    soon = int(time.time()) + 60
    await bench.tenants.add_key(record_of(key).model_copy(update={"expires_at": soon}))
    assert await bench.tenant(key) == "acme"
    monkeypatch.setattr(time, "time", lambda: soon)
    await bench.refusal(f"Bearer {key.text}")


async def test_while_redis_is_away_remembered_keys_go_on_and_others_are_unknown(
    bench: Bench,
) -> None:
    await bench.tenant()
    bench.tenants.is_away = True
    for bench.now in (1.0, TTL, TTL + 1, 2 * TTL, 1_000.0):
        assert await bench.tenant() == "acme"
    assert bench.tenants.finds == 4  # one for every time to live, not for every request
    with pytest.raises(StoreUnavailable):
        await bench.tenant(ApiKey.make())


async def test_the_least_recently_used_key_gives_way() -> None:
    bench = Bench(entries=2)
    await bench.tenants.create(GLOBEX)
    keys = [ApiKey.make() for _ in range(3)]
    for key in keys:
        await bench.tenants.add_key(record_of(key, GLOBEX))
    for index in (0, 1, 0, 2, 0):
        await bench.tenant(keys[index])
    assert bench.tenants.finds == 3
    await bench.tenant(keys[1])
    assert bench.tenants.finds == 4


async def test_of_requests_that_show_a_key_at_once_one_asks_for_it(bench: Bench) -> None:
    assert set(await asyncio.gather(*(bench.tenant() for _ in range(200)))) == {"acme"}
    assert bench.tenants.finds == 1
    bench.tenants.is_away = True
    unknown = ApiKey.make()
    told = await asyncio.gather(*(bench.tenant(unknown) for _ in range(20)), return_exceptions=True)
    assert {type(each) for each in told} == {StoreUnavailable}
    bench.tenants.is_away = False
    await bench.refusal(f"Bearer {unknown.text}")  # the failure is not remembered


async def test_after_a_revocation_no_answer_from_before_lets_anyone_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, release, find = asyncio.Event(), asyncio.Event(), bench.tenants.find

    async def late(key_id: str) -> Bearer | None:
        found = await find(key_id)
        answered.set()
        await release.wait()
        return found

    monkeypatch.setattr(bench.tenants, "find", late)
    before = asyncio.create_task(bench.tenant())
    await answered.wait()
    monkeypatch.setattr(bench.tenants, "find", find)
    await bench.tenants.revoke("acme", bench.key.id, now=1)
    bench.authenticator.forget("acme", WHOLE_TENANT)
    async with asyncio.timeout(5):  # it does not wait for the answer from before
        await bench.refusal(f"Bearer {bench.key.text}")
    release.set()
    assert await before == "acme"  # which came before the revocation
    await bench.refusal(f"Bearer {bench.key.text}")


async def test_a_tenant_has_the_default_limits_but_where_it_has_its_own() -> None:
    bench = Bench(limits=Limits(tasks=5, requests_per_minute=60))
    await bench.tenants.create(ACME.model_copy(update={"limits": Limits(tasks=7)}))
    await bench.tenants.add_key(record_of(bench.key))
    await bench.tenant()
    assert bench.authenticator.tenant("acme").limits == Limits(tasks=7, requests_per_minute=60)
    assert bench.authenticator.tenant("never-seen").limits == Limits(
        tasks=5, requests_per_minute=60
    )


async def test_the_open_tenant_has_the_default_limits() -> None:
    bench = Bench(is_open=True, limits=Limits(tasks=5))
    assert (await bench.authenticator.authenticate("")).limits == Limits(tasks=5)


async def test_a_gateway_that_may_have_missed_a_revocation_trusts_no_key_from_before(
    bench: Bench,
) -> None:
    invalidations = MemoryInvalidations()
    await bench.tenant()
    await bench.tenants.delete("acme")  # and word of it was lost
    following = asyncio.create_task(bench.authenticator.follow(invalidations))
    await asyncio.sleep(0)
    with pytest.raises(Unauthorized):
        await bench.tenant()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
