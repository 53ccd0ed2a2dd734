"""Sampling keeps to its share and its budget, and forgets what it cannot use."""

from collections.abc import Sequence
from random import Random
from typing import cast

from loragen.task import RecipeRef, Task
from loragen.wire import ProbeText
from server.measuring import Measuring
from server.shadow import Shadow

RECIPE = RecipeRef(
    id="ab" * 32, bytes=1, pool_id="ab" * 32, generator_id="ab" * 32, level=1,
    template_hash="ab" * 32,
)  # fmt: skip


class Started:
    """Notes the measures that are begun."""

    def __init__(self) -> None:
        self.measures: list[tuple[str, list[str]]] = []

    def is_on(self, _: str) -> bool:
        return True

    def start_live(self, task: Task, live: Sequence[ProbeText]) -> None:
        self.measures.append((task.id, [probe.input for probe in live]))


class Minute:
    """A clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shadow(started: Started, clock: Minute, *, share: float = 1.0, per_minute: int = 10) -> Shadow:
    return Shadow(
        cast(Measuring, started), share=share, per_minute=per_minute, messages=8, clock=clock,
        draw=Random(0).random,
    )  # fmt: skip


def task(task_id: str = "task_a", tenant: str = "t") -> Task:
    return Task(
        id=task_id, tenant=tenant, edge_model="m", prompt="p", created_at=1, prompt_tokens=1,
        recipe=RECIPE, status="ready",
    )  # fmt: skip


def test_a_share_of_the_messages_is_sampled() -> None:
    started = Started()
    sampling = shadow(started, Minute(), share=0.25, per_minute=100_000)
    for number in range(8_000):
        sampling.take(task(), f"message {number}")
    sampled = 8 * len(started.measures)
    assert 1_800 < sampled < 2_200


def test_a_minute_takes_no_more_than_its_budget_of_each_tenant() -> None:
    started, clock = Started(), Minute()
    sampling = shadow(started, clock)
    for minute in range(4):
        clock.now = 60.0 * minute
        for number in range(50):
            sampling.take(task(), f"message {minute} {number}")
            sampling.take(task("task_b", "other"), f"message {minute} {number}")
    assert sum(name == "task_a" for name, _ in started.measures) == 4 * 10 // 8
    assert sum(name == "task_b" for name, _ in started.measures) == 4 * 10 // 8


def test_the_same_message_counts_once_and_a_measured_pile_is_forgotten() -> None:
    started = Started()
    sampling = shadow(started, Minute(), per_minute=100)
    for number in (1, 1, 2, 3, 4, 5, 6, 7):
        sampling.take(task(), str(number))
    assert not started.measures
    sampling.take(task(), "8")
    assert started.measures == [("task_a", list("12345678"))]
    sampling.take(task(), "9")
    assert len(started.measures) == 1
    assert not any(len(pile.messages) > 1 for pile in sampling._piles.values())


def test_the_piles_of_tasks_nobody_asks_are_dropped() -> None:
    sampling = shadow(Started(), Minute(), per_minute=10_000)
    for number in range(1_000):
        sampling.take(task(f"task_{number}"), "once")
    assert len(sampling._piles) == 256


def test_a_message_is_forgotten_an_hour_after_the_last_one_to_its_task() -> None:
    started, clock = Started(), Minute()
    sampling = shadow(started, clock, per_minute=100)
    for number in range(7):
        sampling.take(task("task_gone"), str(number))
    clock.now = 3_000.0
    for number in range(7):
        sampling.take(task("task_asked"), str(number))
    clock.now = 3_601.0
    sampling.expire()
    for each in ("task_gone", "task_asked"):
        sampling.take(task(each), "the eighth")
    assert [name for name, _ in started.measures] == ["task_asked"]
