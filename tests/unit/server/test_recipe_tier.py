"""Recipe tier: what Redis gives for a recipe is not taken for it unless it is, nor for damage."""

import pytest

from loragen.errors import StoreUnavailable
from loragen.keys import TenantKeys
from loragen.task import RecipeRef
from server.recipe_tier import RecipeTier
from tests.contract.store_contract import REF, task_of
from tests.fakes.memory_store import MemoryStore
from tests.fakes.resolving import metric
from tests.fakes.stub_generator import recipe_of

TASK = task_of(0)
OWN, OTHER = recipe_of(TASK.prompt), recipe_of("another prompt")
ELSEWHERE = recipe_of("another prompt", pool_id="00" * 32)
OWN_REF: RecipeRef = REF.model_copy(update={"id": OWN.id, "pool_id": OWN.pool_id})


class MixedUpStore(MemoryStore):
    """Gives other replies than its own, one after the other, as long as it has some."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[bytes] = []
        self.is_evicting = False

    async def get_recipe(self, key: str) -> bytes | None:
        if self.is_evicting:
            await self.delete_recipe(key)
        data = await super().get_recipe(key)
        return self.replies.pop(0) if self.replies else data

    async def put_recipe(self, key: str, data: bytes) -> bytes:
        kept = await super().put_recipe(key, data)
        return self.replies.pop(0) if self.replies else kept


@pytest.fixture
def store() -> MixedUpStore:
    return MixedUpStore()


@pytest.fixture
def tier(store: MixedUpStore) -> RecipeTier:
    return RecipeTier(store, lambda tenant: TenantKeys((bytes(32),), tenant))


def misdirected() -> float:
    return metric("misdirected_replies_total", source="store")


async def test_a_first_recipe_that_is_another_at_the_second_look_is_a_reply_to_another_request(
    store: MixedUpStore, tier: RecipeTier, caplog: pytest.LogCaptureFixture
) -> None:
    before = misdirected()
    store.replies = [OTHER.data]
    with pytest.raises(StoreUnavailable, match="two recipes"):
        await tier.put(TASK, OWN_REF, OWN)
    assert misdirected() == before + 1
    assert caplog.text.count("is to another request") == 1  # as the chaos run counts them


@pytest.mark.parametrize(
    ("reply", "counted"),
    [(ELSEWHERE.data, 1), (OWN.data[:20], 0)],
    ids=["of another pool", "damaged"],
)
async def test_what_is_no_recipe_only_at_the_first_look_deletes_none(
    store: MixedUpStore, tier: RecipeTier, reply: bytes, counted: int
) -> None:
    before = misdirected()
    (key,) = tier.keys(TASK, OWN_REF)
    await store.put_recipe(key, OTHER.data)  # another gateway was first
    store.replies = [reply]
    with pytest.raises(StoreUnavailable, match="two recipes"):
        await tier.put(TASK, OWN_REF, OWN)
    assert await tier.put(TASK, OWN_REF, OWN) == OTHER
    assert misdirected() == before + counted


@pytest.mark.parametrize(
    "stored", [ELSEWHERE.data, OWN.data[:20]], ids=["of another pool", "damaged"]
)
async def test_what_is_no_recipe_of_the_pool_at_both_looks_is_written_over(
    store: MixedUpStore, tier: RecipeTier, stored: bytes
) -> None:
    before = misdirected()
    (key,) = tier.keys(TASK, OWN_REF)
    store.damage(key, stored)
    assert await tier.put(TASK, OWN_REF, OWN) == OWN
    assert await store.get_recipe(key) == OWN.data
    assert misdirected() == before


async def test_a_damaged_recipe_that_two_gateways_mend_is_for_both_what_is_stored(
    store: MixedUpStore, tier: RecipeTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = tier.keys(TASK, OWN_REF)
    await store.put_recipe(key, OWN.data[:20])
    delete = store.delete_recipe

    async def mended_meanwhile(dropped: str) -> None:
        await delete(dropped)
        await store.put_recipe(dropped, OTHER.data)  # the cloud model's, as another gateway got it

    monkeypatch.setattr(store, "delete_recipe", mended_meanwhile)
    assert await tier.put(TASK, OWN_REF, OWN) == OTHER
    assert await store.get_recipe(key) == OTHER.data


async def test_a_store_that_damages_all_it_is_given_is_given_up(
    store: MixedUpStore, tier: RecipeTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(*_: str | bytes) -> bytes:
        return OWN.data[:20]

    monkeypatch.setattr(store, "put_recipe", damaged)
    monkeypatch.setattr(store, "get_recipe", damaged)
    with pytest.raises(StoreUnavailable, match="keeps no recipe"):
        await tier.put(TASK, OWN_REF, OWN)


async def test_a_first_recipe_that_is_evicted_before_the_second_look_is_no_mix_up(
    store: MixedUpStore, tier: RecipeTier
) -> None:
    before = misdirected()
    (key,) = tier.keys(TASK, OWN_REF)
    store.damage(key, OTHER.data)
    store.is_evicting = True
    assert await tier.put(TASK, OWN_REF, OWN) == OWN
    store.is_evicting = False
    assert await store.get_recipe(key) == OWN.data
    assert misdirected() == before


@pytest.mark.parametrize(
    ("reply", "counted"),
    [(OTHER.data, 1), (ELSEWHERE.data, 1), (OWN.data[:20], 0)],
    ids=["another", "of another pool", "damaged"],
)
async def test_a_recipe_that_is_right_at_the_second_look_is_found_and_kept(
    store: MixedUpStore, tier: RecipeTier, reply: bytes, counted: int
) -> None:
    before = misdirected()
    await tier.put(TASK, OWN_REF, OWN)
    store.replies = [reply]
    assert await tier.find(TASK, OWN_REF) == OWN
    assert store.recipe_keys() == tier.keys(TASK, OWN_REF)
    assert misdirected() == before + counted


@pytest.mark.parametrize(
    "stored",
    [OTHER.data, ELSEWHERE.data, OWN.data[:20]],
    ids=["another", "of another pool", "damaged"],
)
async def test_what_is_no_recipe_of_the_task_at_both_looks_is_deleted(
    store: MixedUpStore, tier: RecipeTier, stored: bytes
) -> None:
    before = misdirected()
    store.damage(tier.keys(TASK, OWN_REF)[0], stored)
    assert await tier.find(TASK, OWN_REF) is None
    assert store.recipe_keys() == []
    assert misdirected() == before


async def test_a_reply_before_a_recipe_is_gone_is_not_taken_for_it(
    store: MixedUpStore, tier: RecipeTier
) -> None:
    before = misdirected()
    store.replies = [OTHER.data]
    assert await tier.find(TASK, OWN_REF) is None
    assert misdirected() == before
