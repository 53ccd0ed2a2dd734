"""A task is said in one of three ways; said twice, it is said alike."""

import pytest

from loragen.errors import InvalidRequest, TaskNotFound
from server.reference import TaskReference, find_task_id
from tests.contract.store_contract import TENANT, task_of
from tests.fakes.memory_names import MemoryNames
from tests.fakes.memory_store import MemoryStore

T = "task_" + "a" * 26


@pytest.mark.parametrize(
    ("model", "task_id", "headers", "edge_model", "task"),
    [
        ("demo", None, [], "demo", None),
        (f"demo:{T}", None, [], "demo", T),
        ("demo:ada", None, [], "demo", "ada"),
        ("demo", T, [], "demo", T),
        ("demo", None, [T], "demo", T),
        ("demo", None, [T, T], "demo", T),
        (f"demo:{T}", T, [T], "demo", T),
        ("org/demo:ada", None, [], "org/demo", "ada"),
        ("a:b:ada", None, [], "a:b", "ada"),
        ("", None, [], "", None),
    ],
)
def test_every_form_names_model_and_task(
    model: str, task_id: str | None, headers: list[str], edge_model: str, task: str | None
) -> None:
    read = TaskReference.parse(model=model, task_id=task_id, headers=headers)
    assert read == TaskReference(edge_model, task)


@pytest.mark.parametrize(
    ("model", "task_id", "headers", "param"),
    [
        ("demo:", None, [], "model"),
        (":ada", None, [], "model"),
        (":", None, [], "model"),
        ("demo", "", [], "task_id"),
        ("demo", None, [""], "task_id"),
        ("demo:ada", "bob", [], "task_id"),
        ("demo:ada", None, ["bob"], "task_id"),
        ("demo", "ada", ["bob"], "task_id"),
        ("demo", None, ["ada", "bob"], "task_id"),
    ],
)
def test_empty_and_contradicting_forms_are_refused(
    model: str, task_id: str | None, headers: list[str], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        TaskReference.parse(model=model, task_id=task_id, headers=headers)
    assert caught.value.param == param


async def test_an_id_stands_for_itself_and_a_name_for_its_task() -> None:
    store = MemoryStore()
    await store.create(task_of(1))
    names = MemoryNames(store)
    await names.claim(TENANT, "ada", task_of(1).id, now=1)
    assert await find_task_id(names, TENANT, T) == T
    assert await find_task_id(names, TENANT, "ada") == task_of(1).id


@pytest.mark.parametrize("reference", ["bob", T + "a", T.upper(), T + "\n", "x" * 10_000])
async def test_what_is_neither_is_not_found(reference: str) -> None:
    with pytest.raises(TaskNotFound):
        await find_task_id(MemoryNames(MemoryStore()), TENANT, reference)
