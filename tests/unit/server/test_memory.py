"""The memory tier: least recently used goes first, and age makes an entry stale, not gone."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from loragen.task import Task
from server.memory import MemoryTier, Resolved
from tests.fakes.stub_generator import recipe_of

CAPACITY = 3
LARGE = 1 << 20


def resolved_of(number: int, *, compiled: bool = True) -> Resolved:
    task = Task(
        id=f"task_{number}", tenant="t", edge_model="m", prompt=str(number), created_at=0,
        prompt_tokens=1,
    )  # fmt: skip
    return Resolved(task, recipe_of(str(number)) if compiled else None)


def key_of(number: int) -> tuple[str, str]:
    return ("t", f"task_{number}")


def size_of(resolved: Resolved) -> int:
    recipe = resolved.recipe
    held = 0 if recipe is None else len(recipe.data) + recipe.gates.nbytes
    return len(resolved.task.prompt.encode()) + held


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put fallback", "get", "drop"]), st.integers(0, 5)),
        max_size=40,
    )
)
def test_it_behaves_like_a_least_recently_used_map(steps: list[tuple[str, int]]) -> None:
    tier = MemoryTier(entries=CAPACITY, max_bytes=LARGE, ttl_seconds=1)
    tier.drop(key_of(0))  # the gauges are the process's: make them this tier's
    model: OrderedDict[int, Resolved] = OrderedDict()
    for step, number in steps:
        if step.startswith("put"):
            resolved = resolved_of(number, compiled=step == "put")
            tier.put(resolved, tier.asking())
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
        assert REGISTRY.get_sample_value("loragen_recipe_cache_entries") == len(model)
        size = sum(size_of(held) for held in model.values())
        assert REGISTRY.get_sample_value("loragen_recipe_cache_bytes") == size


def test_an_entry_goes_stale_and_putting_it_again_refreshes_it() -> None:
    now = 0.0
    tier = MemoryTier(entries=CAPACITY, max_bytes=LARGE, ttl_seconds=2, clock=lambda: now)
    tier.put(resolved_of(1), tier.asking())
    entry = tier.get(key_of(1))
    assert entry is not None
    now = 1.9
    assert tier.is_fresh(entry)
    now = 2.0
    assert not tier.is_fresh(entry)
    assert tier.get(key_of(1)) is entry
    tier.put(entry.resolved, tier.asking())
    again = tier.get(key_of(1))
    assert again is not None
    assert tier.is_fresh(again)


def test_tenants_do_not_share_entries() -> None:
    tier = MemoryTier(entries=CAPACITY, max_bytes=LARGE, ttl_seconds=2)
    tier.put(resolved_of(1), tier.asking())
    assert tier.get(("other", "task_1")) is None


def test_bytes_are_bounded_too() -> None:
    size = size_of(resolved_of(1))
    tier = MemoryTier(entries=100, max_bytes=3 * size, ttl_seconds=1)
    for number in range(1, 6):
        tier.put(resolved_of(number), tier.asking())
    assert [number for number in range(1, 6) if tier.get(key_of(number))] == [3, 4, 5]
    tier.put(resolved_of(4), tier.asking())
    assert tier.get(key_of(3)) is not None


def test_what_is_larger_than_the_whole_tier_is_not_kept() -> None:
    tier = MemoryTier(entries=100, max_bytes=10, ttl_seconds=1)
    tier.put(resolved_of(1), tier.asking())
    assert tier.get(key_of(1)) is None


def test_an_answer_from_before_a_drop_is_not_kept_and_a_later_one_is() -> None:
    tier = MemoryTier(entries=CAPACITY, max_bytes=LARGE, ttl_seconds=2, clock=lambda: 0.0)
    before = tier.asking()
    tier.drop(key_of(1))
    tier.put(resolved_of(1), before)
    tier.put(resolved_of(2), before)
    assert tier.get(key_of(1)) is None
    assert tier.get(key_of(2)) is not None
    tier.put(resolved_of(1), tier.asking())
    assert tier.get(key_of(1)) is not None


def test_after_it_was_cleared_nothing_from_before_is_kept() -> None:
    tier = MemoryTier(entries=CAPACITY, max_bytes=LARGE, ttl_seconds=2)
    tier.put(resolved_of(1), tier.asking())
    before = tier.asking()
    tier.clear()
    assert tier.get(key_of(1)) is None
    tier.put(resolved_of(2), before)
    assert tier.get(key_of(2)) is None
    tier.put(resolved_of(2), tier.asking())
    assert tier.get(key_of(2)) is not None


def test_age_counts_from_the_question_not_from_the_answer() -> None:
    now = 0.0
    tier = MemoryTier(entries=CAPACITY, max_bytes=LARGE, ttl_seconds=2, clock=lambda: now)
    asked = tier.asking()
    now = 1.5
    tier.put(resolved_of(1), asked)
    entry = tier.get(key_of(1))
    assert entry is not None
    now = 1.9
    assert tier.is_fresh(entry)
    now = 2.0
    assert not tier.is_fresh(entry)
