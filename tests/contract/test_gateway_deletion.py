"""A deleted task leaves nothing: neither its id nor its recipe nor a word of its prompt."""

import pytest

from loragen.errors import StoreUnavailable
from loragen.redis_client import connect
from loragen.redis_names import RedisNames
from loragen.redis_store import RedisStore
from loragen.store import Deleted
from loragen.usage import RedisUsage
from server.recipe_tier import RecipeTier
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, tenant_keys
from tests.fakes.live import wait_until
from tests.fakes.stub_generator import GENERATOR_ID, recipe_of
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CANARY = "CANARY-51b7"
PROMPT = f"You are {CANARY}."
POOLS = ("ab" * 32, "00" * 32)


def traces(gate: Gateway, valkey: Valkey) -> list[bytes]:
    """Return what in Redis still tells of the task."""
    task_id = tenant_keys().task_ids(edge_model=MODEL, prompt=PROMPT)[0]
    recipe = expected_recipe(PROMPT)
    recipe_keys = [
        tenant_keys().recipe_keys(
            task_id=task_id, pool_id=pool, generator_id=GENERATOR_ID, level=1,
            template_hash="cd" * 32,
        )[0][:32]
        for pool in POOLS
    ]  # fmt: skip
    signs = [CANARY, task_id, recipe.id, *recipe_keys]
    found = [
        each
        for each in valkey.contents(gate.namespace)
        if any(sign.encode() in each for sign in signs)
    ]
    return found + [each for each in valkey.contents(gate.namespace) if recipe.data in each]


def test_a_deleted_task_leaves_nothing_in_redis(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create(PROMPT, name="ada")["id"]
    for name, prompt in (("ada", "Other."), ("bob", PROMPT), ("bob", "Other."), ("bob", PROMPT)):
        body = {"model": MODEL, "system_prompt": prompt}
        assert gate.http.put(f"/v1/tasks/by-name/{name}", json=body).status_code == 201
    gate.ask("hi", task_id=task_id)
    assert len(traces(gate, valkey)) > 5
    gate.http.delete(f"/v1/tasks/{task_id}")
    assert traces(gate, valkey) == []
    assert [
        each["version"] for each in gate.http.get("/v1/tasks/by-name/bob/versions").json()["data"]
    ] == [2]


def test_a_delete_that_breaks_off_is_ended_by_the_next_one(
    gate: Gateway, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_off(*_: object, **__: object) -> None:
        raise StoreUnavailable("the task store does not answer", retry_after=1.0)

    task_id = gate.create(PROMPT, name="ada")["id"]
    gate.ask("hi", task_id=task_id)
    steps = (
        (RedisNames, "forget_task"),
        (RedisUsage, "forget_task"),
        (RedisStore, "delete_recipe"),
        (RedisStore, "delete"),
    )
    for owner, step in steps:
        with monkeypatch.context() as broken:
            broken.setattr(owner, step, break_off)
            assert gate.http.delete(f"/v1/tasks/{task_id}").status_code == 503
        assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 200
    assert gate.http.delete(f"/v1/tasks/{task_id}").status_code == 200
    assert traces(gate, valkey) == []


def test_a_name_that_comes_while_its_task_is_deleted_goes_with_it(
    gate: Gateway, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = gate.create(PROMPT)["id"]
    delete = RedisStore.delete

    async def named_meanwhile(store: RedisStore, tenant: str, deleted: str) -> Deleted | None:
        client = connect(valkey.url, timeout_seconds=5.0)
        names = RedisNames(client, namespace=gate.namespace, keep=5)
        await names.claim(tenant, "late", deleted, now=1)
        await client.aclose()
        return await delete(store, tenant, deleted)

    monkeypatch.setattr(RedisStore, "delete", named_meanwhile)
    assert gate.http.delete(f"/v1/tasks/{task_id}").status_code == 200
    assert traces(gate, valkey) == []
    assert gate.http.get("/v1/tasks/by-name/late").status_code == 404


def test_a_recipe_that_a_compile_records_while_its_task_is_deleted_goes_with_it(
    gate: Gateway, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = gate.create(PROMPT)["id"]
    delete = RedisStore.delete

    async def compiled_meanwhile(store: RedisStore, tenant: str, deleted: str) -> Deleted | None:
        task = await store.get(tenant, deleted)
        assert task is not None
        assert task.recipe is not None
        late = recipe_of(PROMPT, pool_id=POOLS[1])
        ref = task.recipe.model_copy(update={"id": late.id, "pool_id": late.pool_id})
        await RecipeTier(store, lambda _: tenant_keys()).put(task, ref, late)
        assert await store.update(task.on(late.pool_id).model_copy(update={"recipe": ref}))
        return await delete(store, tenant, deleted)

    monkeypatch.setattr(RedisStore, "delete", compiled_meanwhile)
    assert gate.http.delete(f"/v1/tasks/{task_id}").status_code == 200
    assert traces(gate, valkey) == []


def test_a_task_whose_record_is_damaged_while_it_is_deleted_is_deleted(
    gate: Gateway, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = gate.create(PROMPT)["id"]
    delete = RedisStore.delete

    async def damaged_meanwhile(store: RedisStore, tenant: str, deleted: str) -> Deleted | None:
        valkey.damage_record(f"{gate.namespace}:task:{tenant}:{deleted}")
        return await delete(store, tenant, deleted)

    monkeypatch.setattr(RedisStore, "delete", damaged_meanwhile)
    reply = gate.http.delete(f"/v1/tasks/{task_id}")
    assert (reply.status_code, reply.json()["deleted"]) == (200, True)
    assert traces(gate, valkey) == []
    assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 404


@pytest.mark.parametrize("field", ["record", "prompt"])
def test_a_task_that_was_damaged_before_is_deleted_with_all_that_its_id_leads_to(
    gate: Gateway, valkey: Valkey, field: str
) -> None:
    task_id = gate.create(PROMPT, name="ada")["id"]
    gate.ask("hi", task_id=task_id)
    recipe = expected_recipe(PROMPT).data
    (key,) = valkey.client.scan_iter(f"{gate.namespace}:task:*{task_id}")
    valkey.damage_record(bytes(key).decode(), b"\xff", field=field)
    assert gate.http.get(f"/v1/tasks/{task_id}").status_code == 503
    reply = gate.http.delete(f"/v1/tasks/{task_id}")
    assert (reply.status_code, reply.json()["deleted"]) == (200, True)
    # A damaged record tells of no recipe; nothing leads to that one any more, and it expires.
    left = traces(gate, valkey)
    assert [each for each in left if b":recipe:" not in each and recipe not in each] == []
    assert field == "record" or left == []
    assert gate.http.delete(f"/v1/tasks/{task_id}").status_code == 404
    assert gate.ask("hi", task_id=task_id).status_code == 404
    assert gate.create(PROMPT)["id"] == task_id


def test_recipes_of_earlier_pools_are_deleted_too(gate: Gateway, valkey: Valkey) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.worker.pool_id = gate.generator.pool_id = POOLS[1]
    assert gate.ask("hi", task_id=task_id).headers["x-loragen-mode"] == "compiled"
    gate.http.delete(f"/v1/tasks/{task_id}")
    assert traces(gate, valkey) == []


def test_a_task_deleted_while_it_compiles_leaves_nothing_in_redis(
    gate: Gateway, valkey: Valkey
) -> None:
    gate.generator.is_held = True
    task_id = gate.create(PROMPT, wait=False, name="ada")["id"]
    wait_until(lambda: gate.generator.calls.total() == 1)
    gate.http.delete(f"/v1/tasks/{task_id}")
    gate.generator.is_held = False
    wait_until(lambda: gate.metric("loragen_compile_inflight") == 0)
    wait_until(lambda: traces(gate, valkey) == [])


def test_a_name_does_not_move_to_a_task_that_is_deleted_meanwhile(
    gate: Gateway, valkey: Valkey
) -> None:
    path = "/v1/tasks/by-name/ada"
    gate.http.put(path, json={"model": MODEL, "system_prompt": "Other."})
    gate.generator.is_held = True
    body = {"model": MODEL, "system_prompt": PROMPT, "wait": False}
    task_id = gate.http.put(path, json=body).json()["id"]
    gate.http.delete(f"/v1/tasks/{task_id}")
    gate.generator.is_held = False
    wait_until(lambda: gate.metric("loragen_compile_inflight") == 0)
    wait_until(lambda: traces(gate, valkey) == [])
    assert gate.http.get(path).json()["version"] == 1
