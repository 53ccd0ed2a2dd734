"""Workers of two pools behind one gateway: no recipe is mixed from another pool than its own."""

import time
from collections.abc import Iterator

import pytest

from loragen.pools import PoolState
from loragen.recipe import Recipe
from tests.fakes.fake_worker import POOL_ID, FakeWorker
from tests.fakes.gateway import MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.stub_generator import recipe_of
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

PROMPT = "You are Ada."
NEW_POOL = "00" * 32


@pytest.fixture
def old() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def new() -> FakeWorker:
    return FakeWorker(pool_id=NEW_POOL)


@pytest.fixture
def gate(valkey: Valkey, namespace: str, old: FakeWorker, new: FakeWorker) -> Iterator[Gateway]:
    """A gateway that looks at its two workers once and then not for a long time."""
    with gateway(
        redis_shared(valkey.url, namespace),
        namespace,
        workers=[old, new],
        server={"probe_interval_seconds": 60.0},
    ) as running:
        yield running


def used(gate: Gateway, task_id: str) -> str | None:
    """Return the recipe that a request is answered with, which the answer must name."""
    reply = gate.ask("hi", task_id=task_id)
    assert reply.status_code == 200, reply.text
    recipe: str | None = reply.headers.get("x-loragen-recipe")
    assert f"[recipe {recipe or 'none'}]" in reply.json()["choices"][0]["message"]["content"]
    return recipe


def test_a_recipe_goes_only_to_workers_of_its_pool_and_a_prompt_to_any(
    gate: Gateway, old: FakeWorker, new: FakeWorker
) -> None:
    tasks = [gate.create(f"You are number {number}.")["id"] for number in range(5)]
    for _ in range(10):
        assert all(used(gate, task_id) for task_id in tasks)
    assert len(old.seen) == 50
    assert not new.seen
    for _ in range(40):
        assert gate.ask("hi").headers["x-loragen-mode"] == "base"
    assert min(len(old.seen) - 50, len(new.seen)) > 0
    assert old.refused + new.refused == 0


def test_a_worker_that_changed_its_pool_is_found_out_by_one_refusal(
    valkey: Valkey, namespace: str, old: FakeWorker, new: FakeWorker
) -> None:
    third = FakeWorker()
    with gateway(
        redis_shared(valkey.url, namespace),
        namespace,
        workers=[old, new, third],
        server={"probe_interval_seconds": 60.0},
    ) as gate:
        task_id = gate.create(PROMPT)["id"]
        old.pool_id = NEW_POOL
        for _ in range(20):
            assert used(gate, task_id) == recipe_of(PROMPT).id
        assert (old.refused, new.refused, third.refused) == (1, 0, 0)
        third.pool_id = NEW_POOL
        assert used(gate, task_id) is None
        assert gate.generator.calls.total() == 2


def test_when_the_last_worker_of_a_pool_is_gone_the_request_is_answered_by_another(
    gate: Gateway, old: FakeWorker, new: FakeWorker
) -> None:
    task_id = gate.create(PROMPT)["id"]
    assert used(gate, task_id) == recipe_of(PROMPT).id
    gate.worker_servers[0].kill()
    gate.generator.pool_id = NEW_POOL
    assert used(gate, task_id) == recipe_of(PROMPT, pool_id=NEW_POOL).id
    assert new.refused == 0


def test_a_stream_whose_recipe_is_refused_begins_with_another(
    gate: Gateway, old: FakeWorker, new: FakeWorker
) -> None:
    task_id = gate.create(PROMPT)["id"]
    old.pool_id = NEW_POOL
    reply = gate.ask("hi", task_id=task_id, stream=True)
    assert reply.status_code == 200
    assert reply.headers["x-loragen-fallback-reason"] == "worker_pool_mismatch"
    assert reply.text.endswith("data: [DONE]\n\n")
    assert '"error"' not in reply.text
    old.pool_id = POOL_ID
    new.pool_id = POOL_ID
    wait_until(lambda: gate.ask("hi", task_id=task_id).status_code == 200)


def agree(valkey: Valkey, namespace: str, **pools: str) -> None:
    """Write down which pool serves, which is coming and which was before."""
    state = PoolState.model_validate(pools)
    valkey.client.hset(f"{namespace}:pools", MODEL, state.model_dump_json(exclude_none=True))


@pytest.fixture
def two(
    valkey: Valkey, namespace: str, old: FakeWorker, new: FakeWorker
) -> Iterator[tuple[Gateway, Gateway]]:
    """Two gateways over the same two workers, with one generator for both pools."""
    slow = {"memory_ttl_seconds": 60.0}  # so that nothing but the state makes them ask again
    shared = [redis_shared(valkey.url, namespace) for _ in range(2)]
    workers = [old, new]
    with (
        gateway(shared[0], namespace, workers=workers, store=slow) as one,
        gateway(shared[1], namespace, workers=workers, store=slow) as other,
    ):
        one.generator.more_pools = other.generator.more_pools = (NEW_POOL,)
        yield one, other


def uses(gates: tuple[Gateway, Gateway], task_id: str, recipe: Recipe) -> bool:
    return [used(gate, task_id) for gate in gates] == [recipe.id] * 2


def test_a_switch_and_a_rollback_are_seen_by_all_gateways_within_two_seconds(
    two: tuple[Gateway, Gateway], valkey: Valkey, namespace: str, new: FakeWorker, old: FakeWorker
) -> None:
    task_id = two[0].create(PROMPT)["id"]
    of_old, of_new = (recipe_of(PROMPT, pool_id=pool) for pool in (POOL_ID, NEW_POOL))
    agree(valkey, namespace, serving=POOL_ID, coming=NEW_POOL)
    wait_until(lambda: uses(two, task_id, of_old))
    old.is_draining = True
    wait_until(lambda: uses(two, task_id, of_new))
    old.is_draining = False
    wait_until(lambda: uses(two, task_id, of_old))
    compiles = sum(gate.generator.calls.total() for gate in two)
    for _ in range(3):
        agree(valkey, namespace, serving=NEW_POOL, previous=POOL_ID)
        wait_until(lambda: uses(two, task_id, of_new), seconds=2)
        shown = two[0].http.get(f"/v1/tasks/{task_id}").json()
        assert (shown["status"], shown["recipe"]["id"]) == ("ready", of_new.id)
        assert two[1].create(PROMPT)["recipe"]["id"] == of_new.id
        agree(valkey, namespace, serving=POOL_ID)
        wait_until(lambda: uses(two, task_id, of_old), seconds=2)
    assert compiles == sum(gate.generator.calls.total() for gate in two)
    assert old.refused + new.refused == 0


def test_what_is_measured_for_the_coming_pool_is_refined_for_that(
    valkey: Valkey, namespace: str, old: FakeWorker, new: FakeWorker
) -> None:
    shared = redis_shared(valkey.url, namespace)
    with gateway(shared, namespace, workers=[old, new], server={"measure": True}) as gate:
        gate.generator.more_pools = (NEW_POOL,)
        task_id = gate.create(PROMPT)["id"]
        wait_until(lambda: gate.http.get(f"/v1/tasks/{task_id}").json()["measured"])
        gate.generator.measured = (0.5, 0.5)
        agree(valkey, namespace, serving=POOL_ID, coming=NEW_POOL)
        wait_until(lambda: len(gate.generator.refines) == 1)
        start = gate.generator.refines[0].start
        assert start == recipe_of(PROMPT, pool_id=NEW_POOL).text
        assert used(gate, task_id) == recipe_of(PROMPT).id


def test_an_upgrade_after_one_that_was_given_up_keeps_the_recipes_that_serve(
    two: tuple[Gateway, Gateway], valkey: Valkey, namespace: str, new: FakeWorker
) -> None:
    task_id = two[0].create(PROMPT)["id"]

    def compiles() -> int:
        return sum(gate.generator.calls[PROMPT] for gate in two)

    for pool in (NEW_POOL, "11" * 32):
        known = compiles()
        new.pool_id = pool
        for gate in two:
            gate.generator.more_pools = (pool,)
        agree(valkey, namespace, serving=POOL_ID, coming=pool)
        while compiles() == known:  # by the gateway that holds the lease
            time.sleep(0.05)
        wait_until(lambda: len(list(valkey.client.scan_iter(f"{namespace}:recipe:*"))) == 2)
        assert uses(two, task_id, recipe_of(PROMPT))
        agree(valkey, namespace, serving=POOL_ID)
        wait_until(lambda: uses(two, task_id, recipe_of(PROMPT)))
    assert compiles() == 3  # once for each pool: the one that serves was not lost


def test_tasks_that_are_damaged_hold_no_others_up(
    valkey: Valkey, namespace: str, old: FakeWorker, new: FakeWorker
) -> None:
    prompts = [f"You are number {number}." for number in range(6)]
    with gateway(redis_shared(valkey.url, namespace), namespace, workers=[old, new]) as gate:
        tasks = [gate.create(prompt)["id"] for prompt in prompts]
        for task_id in tasks[1:4]:
            (key,) = valkey.client.scan_iter(f"{namespace}:task:*:{task_id}")
            valkey.client.hdel(key, "prompt")
        gate.generator.calls.clear()
        gate.generator.more_pools = (NEW_POOL,)
        agree(valkey, namespace, serving=POOL_ID, coming=NEW_POOL)
        whole = [prompts[0], *prompts[4:]]
        wait_until(lambda: all(gate.generator.calls[prompt] for prompt in whole))


def test_a_task_of_a_pool_without_workers_has_its_prompt_until_it_is_compiled_again(
    valkey: Valkey, namespace: str, old: FakeWorker, new: FakeWorker
) -> None:
    agree(valkey, namespace, serving=POOL_ID, coming=NEW_POOL)
    with gateway(redis_shared(valkey.url, namespace), namespace, workers=[old, new]) as gate:
        gate.generator.more_pools = (NEW_POOL,)
        task_id = gate.create(PROMPT)["id"]
        gate.generator.is_held = True
        old.is_draining = True
        wait_until(lambda: used(gate, task_id) is None)
        reply = gate.ask("hi", task_id=task_id)
        assert reply.headers["x-loragen-fallback-reason"] == "worker_pool_mismatch"
        assert gate.http.get(f"/v1/tasks/{task_id}").json()["recipe"] is None
        gate.generator.is_held = False
        wait_until(lambda: used(gate, task_id) == recipe_of(PROMPT, pool_id=NEW_POOL).id)


def test_a_generator_of_the_new_pool_alone_serves_new_tasks_from_there(
    two: tuple[Gateway, Gateway], valkey: Valkey, namespace: str, new: FakeWorker
) -> None:
    known = two[0].create(PROMPT)["id"]
    agree(valkey, namespace, serving=POOL_ID, coming=NEW_POOL)
    for gate in two:
        gate.generator.pool_id, gate.generator.more_pools = NEW_POOL, ()
    other = recipe_of("Another.", pool_id=NEW_POOL)
    wait_until(lambda: two[0].create("Another.")["recipe"]["id"] == other.id)
    task_id = two[0].create("Another.")["id"]
    assert uses(two, task_id, other)
    assert uses(two, known, recipe_of(PROMPT))
    assert new.refused == 0


def test_a_task_that_is_deleted_leaves_the_recipe_of_neither_pool(
    two: tuple[Gateway, Gateway], valkey: Valkey, namespace: str, old: FakeWorker
) -> None:
    gate = two[0]
    task_id = gate.create(PROMPT)["id"]
    agree(valkey, namespace, serving=NEW_POOL, previous=POOL_ID)
    old.is_draining = True
    wait_until(lambda: used(gate, task_id) == recipe_of(PROMPT, pool_id=NEW_POOL).id)
    assert len(list(valkey.client.scan_iter(f"{namespace}:recipe:*"))) == 2
    gate.http.delete(f"/v1/tasks/{task_id}")
    assert list(valkey.client.scan_iter(f"{namespace}:recipe:*")) == []
