"""What each kind of request does to the metrics that operators watch."""

from collections.abc import Callable

import pytest

from loragen.errors import GeneratorUnavailable
from tests.fakes.gateway import MODEL, Gateway
from tests.fakes.live import wait_until

PROMPT = "You are Ada of Globex."
HITS, MISSES = "loragen_recipe_cache_hits_total", "loragen_recipe_cache_misses_total"


@pytest.fixture
def moved(gate: Gateway) -> Callable[..., float]:
    """Return by how much a metric moved since it was first asked for."""
    before: dict[tuple[str, ...], float] = {}

    def by(name: str, **labels: str) -> float:
        value = gate.metric(name, **labels)
        return value - before.setdefault((name, *sorted(labels.values())), value)

    return by


def test_recipes_found_are_counted_by_tier(gate: Gateway, moved: Callable[..., float]) -> None:
    task_id = gate.create(PROMPT)["id"]
    moved(HITS, tier="memory")
    moved(HITS, tier="redis")
    moved(MISSES, tier="memory")
    wait_until(lambda: gate.ask("hi", task_id=task_id) and moved(HITS, tier="memory") >= 1)
    # Memory asks Redis again once its entry is stale.
    wait_until(lambda: gate.ask("hi", task_id=task_id) and moved(HITS, tier="redis") >= 1)
    assert moved(MISSES, tier="memory") >= 1


def test_compiles_are_counted_while_they_run_timed_and_failures_told_by_reason(
    gate: Gateway, moved: Callable[..., float]
) -> None:
    failure = {"reason": "generator_unavailable"}
    moved("loragen_compile_seconds_count")
    moved("loragen_compile_failures_total", **failure)
    gate.generator.is_held = True
    gate.create(PROMPT, wait=False)
    wait_until(lambda: gate.metric("loragen_compile_inflight") == 1)
    gate.generator.is_held = False
    wait_until(lambda: gate.metric("loragen_compile_inflight") == 0)
    assert moved("loragen_compile_seconds_count") == 1
    gate.generator.error = GeneratorUnavailable("away")
    gate.create(PROMPT + " Be brief.")
    assert moved("loragen_compile_seconds_count") == 1
    assert moved("loragen_compile_failures_total", **failure) == 1


def test_latency_is_told_by_model_and_mode(gate: Gateway, moved: Callable[..., float]) -> None:
    names = [
        f"loragen_{name}_seconds_count"
        for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
    ]
    labels = {"model": MODEL, "mode": "compiled"}
    task_id = gate.create(PROMPT)["id"]
    for name in names:
        moved(name, **labels)
    chunks = gate.ask("one two", task_id=task_id, stream=True).text.count("data: {")
    assert chunks > 2
    assert [moved(name, **labels) for name in names] == [1, chunks - 1, 1]


def test_what_a_recipe_saves_is_counted_in_tokens(
    gate: Gateway, moved: Callable[..., float]
) -> None:
    task = gate.create(PROMPT)
    moved("loragen_prompt_tokens_saved_total")
    for _ in range(3):
        gate.ask("hi", task_id=task["id"])
    assert moved("loragen_prompt_tokens_saved_total") == 3 * task["prompt_tokens"] > 0
