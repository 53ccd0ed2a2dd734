"""A task on two pools: what it has for the one is never taken for what it has for the other."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loragen.gate import Gate
from loragen.measurement import Measurement, RefineOutcome
from loragen.task import RecipeRef, Task, TaskRecord
from tests.contract.store_contract import REF, task_of

A, B, C = ("0a" * 32, "0b" * 32, "0c" * 32)
POOLS = st.sampled_from((A, B, C))


def ref(pool_id: str) -> RecipeRef:
    return REF.model_copy(update={"pool_id": pool_id, "id": pool_id[::-1]})


def compiled(task: Task, pool_id: str, **fields: Any) -> Task:
    """Return a task with a recipe for a pool, as the compiler leaves it."""
    new = {"status": "ready", "recipe": ref(pool_id), "refined": b"", "fallback_reason": None}
    return task.on(pool_id).model_copy(update=new | fields)


def test_what_it_has_for_a_pool_is_there_again_when_it_comes_back() -> None:
    known = {
        "measurement": Measurement.of(ref(A).id, fidelity=0.9),
        "refine": RefineOutcome(status="done", probes=8),
        "refined": b"of A", "ready_at": 7, "compile_seconds": 0.5,
    }  # fmt: skip
    on_a = compiled(task_of(0), A, **known)
    on_b = compiled(on_a, B, ready_at=8)
    assert (on_b.recipe, on_b.refined, on_b.measured, on_b.refine) == (ref(B), b"", None, None)
    assert on_b.recipes == (ref(B), ref(A))
    again = on_b.on(A)
    assert again.model_copy(update={"spare": None, "spare_refined": b""}) == on_a
    assert again.on(B) == on_b
    assert again.spare is not None
    assert again.spare.recipe == ref(B)


def test_a_pool_for_which_nothing_is_known_leaves_a_task_blank() -> None:
    on_a = compiled(task_of(0), A, refined=b"of A")
    blank = on_a.on(B)
    assert (blank.status, blank.recipe, blank.refined) == ("compiling", None, b"")
    assert blank.on(A) == on_a
    assert task_of(0).on(A) == task_of(0)
    failed = blank.model_copy(update={"status": "fallback", "fallback_reason": "no_generator"})
    assert failed.on(B) == failed
    assert failed.on(C) == failed
    assert failed.on(A) == on_a


def test_a_third_pool_takes_the_place_of_the_one_that_was_longest_away() -> None:
    task = compiled(compiled(compiled(task_of(0), A), B), C)
    assert task.recipes == (ref(C), ref(B))
    assert task.on(A).recipe is None


def test_a_record_without_its_prompt_knows_the_same() -> None:
    task = compiled(compiled(task_of(0), A), B)
    record = TaskRecord.model_validate(task.model_dump())
    for pool_id in (A, B, C):
        assert record.on(pool_id).recipe == task.on(pool_id).recipe
        assert TaskRecord.model_validate(task.on(pool_id).model_dump()) == record.on(pool_id)


def test_the_first_pool_with_a_recipe_that_may_be_served_is_best() -> None:
    both = compiled(compiled(task_of(0), A), B)

    def best(task: Task, *pool_ids: str) -> Task:
        return task.best_of(pool_ids, lambda view: view.withheld(Gate()))

    assert best(both, A, B).recipe == ref(A)
    assert best(both, B, A).recipe == ref(B)
    assert best(both, C, A).recipe == ref(A)
    assert best(both, C).recipe is None
    assert best(both) is both
    poor = compiled(both, A, measurement=Measurement.of(ref(A).id, fidelity=0.1))
    assert poor.withheld(Gate()) == "low_fidelity"
    assert best(poor, A, B).recipe == ref(B)
    assert best(poor, A, C).recipe == ref(A)
    assert best(task_of(0), A, B) == task_of(0)


@given(st.lists(st.tuples(POOLS, st.booleans())))
def test_a_task_never_has_the_recipe_of_another_pool(steps: list[tuple[str, bool]]) -> None:
    task, latest = task_of(0), dict[str, bytes]()
    for number, (pool_id, compiles) in enumerate(steps):
        if compiles:
            latest[pool_id] = refined = f"{pool_id} {number}".encode()
            task = compiled(task, pool_id, refined=refined)
        else:
            task = task.on(pool_id)
        assert len({each.pool_id for each in task.recipes}) == len(task.recipes) <= 2
        for other in (A, B, C):
            view = task.on(other)
            if view.recipe is not None:
                assert view.recipe.pool_id == other
                assert view.refined == latest[other]
