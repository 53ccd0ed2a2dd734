"""The order of an upgrade: popular tasks first, and no tenant holds up another."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from loragen.tenants import Tenant
from loragen.usage import Numbers, UsageKey
from server.standing import Standing
from server.upgrade_plan import Candidate, by_turns, is_no_worse, survey
from server.usage_meter import today
from tests.contract.store_contract import REF, task_of
from tests.fakes.memory_store import MemoryStore
from tests.fakes.shared_state import shared_state

STANDING = Standing({}, measured=(task_of(0).edge_model,))
A, B = "0a" * 32, "0b" * 32


@given(st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=6))
def test_whoever_has_many_tasks_has_no_more_of_any_beginning(requests: list[list[int]]) -> None:
    by_tenant = [
        [
            Candidate(str(tenant), f"task_{number}", count, has_recipe=False, is_ready=False)
            for number, count in enumerate(sorted(counts, reverse=True))
        ]
        for tenant, counts in enumerate(requests)
    ]
    order = list(by_turns(by_tenant))
    assert sorted(map(str, order)) == sorted(str(each) for own in by_tenant for each in own)
    done = [0] * len(by_tenant)
    for each in order:
        tenant = int(each.tenant)
        assert each is by_tenant[tenant][done[tenant]]  # the busiest of its own first
        done[tenant] += 1
        waiting = [n for n, own in zip(done, by_tenant, strict=True) if n < len(own)]
        assert max(done) - min(waiting, default=max(done)) <= 1


async def test_tasks_are_known_by_their_requests_and_those_of_auto_mode_if_they_have_any() -> None:
    shared = shared_state(MemoryStore())
    await shared.tenants.create(Tenant(id="acme", created_at=1))
    on_a = {"recipe": REF.model_copy(update={"pool_id": A}), "status": "ready"}
    for number in range(3):
        await shared.store.create(task_of(number, **on_a))
    await shared.store.create(task_of(0, tenant="acme", **on_a))
    await shared.store.create(task_of(3, edge_model="other"))
    for number in (4, 5):
        await shared.store.create(task_of(number, is_implicit=True, **on_a))
    used = {task_of(1).id: 7, task_of(2).id: 3, task_of(4).id: 5, task_of(5).id: 0}
    numbers = {
        UsageKey("default", today() - timedelta(days=1), "demo", "compiled", task_id): Numbers(
            requests=count
        )
        for task_id, count in used.items()
        if count
    }
    await shared.usage.add("batch", numbers)
    found = await survey(shared, STANDING, "demo", pool_id=B, other=A, days=1)
    assert [(each.tenant, each.task_id, each.requests) for each in found] == [
        ("default", task_of(1).id, 7),
        ("acme", task_of(0).id, 0),
        ("default", task_of(4).id, 5),
        ("default", task_of(2).id, 3),
        ("default", task_of(0).id, 0),
    ]
    assert not any(each.has_recipe or each.is_ready for each in found)
    long_ago = await survey(shared, STANDING, "demo", pool_id=B, other=A, days=0)
    assert {each.requests for each in long_ago} == {0}


def test_a_pool_is_no_worse_where_the_other_serves_nothing_either() -> None:
    blank = task_of(0)
    on_a = blank.model_copy(update={"recipe": REF.model_copy(update={"pool_id": A})})
    assert is_no_worse(STANDING, blank, B, A)
    assert not is_no_worse(STANDING, on_a, B, A)
    assert is_no_worse(STANDING, on_a, A, B)
    assert is_no_worse(STANDING, on_a, B, None)
    held = on_a.model_copy(update={"needs_measure": True})
    assert is_no_worse(STANDING, held, B, A)
    both = on_a.on(B).model_copy(update={"recipe": REF.model_copy(update={"pool_id": B})})
    assert is_no_worse(STANDING, both, B, A)
