"""Workers of two pools behind one gateway: no recipe is mixed from another pool than its own."""

from collections.abc import Iterator

import pytest

from tests.fakes.fake_worker import POOL_ID, FakeWorker
from tests.fakes.gateway import Gateway, gateway, redis_shared
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
        assert old.refused <= 2  # two where the first probe's answer was under way
        assert new.refused + third.refused == 0
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
