"""The memory tier: least recently used goes first, and age makes an entry stale, not gone."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from loragen.task import Task
from server.memory import MemoryTier, Resolved
from tests.fakes.stub_generator import recipe_of

CAPACITY = 3


def resolved_of(number: int, *, compiled: bool = True) -> Resolved:
    task = Task(
        id=f"task_{number}", tenant="t", edge_model="m", prompt=str(number), created_at=0,
        prompt_tokens=1,
    )  # fmt: skip
    return Resolved(task, recipe_of(str(number)) if compiled else None)


def key_of(number: int) -> tuple[str, str]:
    return ("t", f"task_{number}")


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put fallback", "get", "drop"]), st.integers(0, 5)),
        max_size=40,
    )
)
def test_it_behaves_like_a_least_recently_used_map(steps: list[tuple[str, int]]) -> None:
    tier = MemoryTier(entries=CAPACITY, ttl_seconds=1)
    tier.drop(key_of(0))  # the gauges are the process's: make them this tier's
    model: OrderedDict[int, Resolved] = OrderedDict()
    for step, number in steps:
        if step.startswith("put"):
            resolved = resolved_of(number, compiled=step == "put")
            tier.put(resolved)
            model.pop(number, None)
            model[number] = resolved
            if len(model) > CAPACITY:
                model.popitem(last=False)
        elif step == "get":
            entry = tier.get(key_of(number))
            assert (entry.resolved if entry else None) is model.get(number)
            if number in model:
                model.move_to_end(number)
        else:
            tier.drop(key_of(number))
            model.pop(number, None)
        recipes = [held.recipe for held in model.values() if held.recipe is not None]
        assert REGISTRY.get_sample_value("loragen_recipe_cache_entries") == len(model)
        assert REGISTRY.get_sample_value("loragen_recipe_cache_bytes") == sum(
            len(recipe.data) for recipe in recipes
        )


def test_an_entry_goes_stale_and_putting_it_again_refreshes_it() -> None:
    now = 0.0
    tier = MemoryTier(entries=CAPACITY, ttl_seconds=2, clock=lambda: now)
    tier.put(resolved_of(1))
    entry = tier.get(key_of(1))
    assert entry is not None
    now = 1.9
    assert tier.is_fresh(entry)
    now = 2.0
    assert not tier.is_fresh(entry)
    assert tier.get(key_of(1)) is entry
    tier.put(entry.resolved)
    again = tier.get(key_of(1))
    assert again is not None
    assert tier.is_fresh(again)


def test_tenants_do_not_share_entries() -> None:
    tier = MemoryTier(entries=CAPACITY, ttl_seconds=2)
    tier.put(resolved_of(1))
    assert tier.get(("other", "task_1")) is None
