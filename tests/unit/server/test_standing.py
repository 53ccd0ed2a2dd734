"""Standing: which of the tasks that were just measured are refined by themselves."""

from typing import Any, Literal

import pytest

from loragen.gate import Gate
from loragen.measurement import Measurement, RefineOutcome
from loragen.task import Task
from loragen.wire import ProbeText
from server.standing import Standing
from tests.contract.store_contract import REF, task_of

BARS = Gate(max_doubt=0.1, min_agreement=0.75, refine_below_agreement=0.9, refine_from_fidelity=0.6)
PROBES = tuple(ProbeText(input=f"question {number}") for number in range(8))


def measured(
    by: Literal["measure", "refine", "shadow"], agreement: float, fidelity: float, **fields: Any
) -> Task:
    found = Measurement.of(REF.id, fidelity=fidelity, agreement=agreement, doubt=0.01, by=by)
    return task_of(0).model_copy(update={"recipe": REF, "measurement": found, **fields})


@pytest.mark.parametrize(
    ("task", "is_to_be_refined"),
    [
        (measured("measure", 0.9, 0.9), False),
        (measured("measure", 0.8, 0.9), True),
        (measured("measure", 0.7, 0.9), True),
        (measured("measure", 0.7, 0.5), False),
        (measured("measure", 0.7, 0.5, probes=PROBES), True),
        (measured("shadow", 0.8, 0.9), False),
        (measured("shadow", 0.7, 0.9), True),
        (measured("shadow", 0.7, 0.5), True),
        (measured("measure", 0.7, 0.9, min_fidelity=0.0), False),
        (task_of(0).model_copy(update={"recipe": REF, "measurement": None}), False),
    ],
)
def test_a_new_recipe_is_refined_that_agrees_too_seldom_and_a_serving_one_that_drifts(
    task: Task, is_to_be_refined: bool
) -> None:
    standing = Standing({task.edge_model: BARS}, measured=(task.edge_model,))
    assert standing.is_to_be_refined(task) == is_to_be_refined


@pytest.mark.parametrize(("by", "now", "is_to_be_refined"), [
    ("shadow", 1_000.0, False), ("shadow", 1_599.0, False), ("shadow", 1_600.0, True),
    ("measure", 1_000.0, True),
])  # fmt: skip
def test_live_messages_ask_for_a_refine_once_in_ten_minutes(
    by: Literal["measure", "shadow"], now: float, is_to_be_refined: bool
) -> None:
    last = RefineOutcome(status="kept", probes=8, at=1_000)
    task = measured(by, 0.7, 0.7, refine=last)
    standing = Standing({task.edge_model: BARS}, measured=(task.edge_model,), clock=lambda: now)
    assert standing.is_to_be_refined(task) == is_to_be_refined


def test_where_nothing_is_measured_no_task_waits_for_it() -> None:
    task = task_of(0).model_copy(update={"recipe": REF, "measurement": None, "needs_measure": True})
    low = measured("measure", 0.5, 0.5)
    for models, withheld in (((task.edge_model,), "not_measured"), ((), None)):
        standing = Standing({task.edge_model: BARS}, measured=models)
        assert standing.withheld(task) == withheld
        assert standing.withheld(low) == "low_fidelity"


def last(status: Literal["done", "kept", "failed"], reason: str | None, at: int) -> RefineOutcome:
    return RefineOutcome(status=status, reason=reason, probes=8, at=at)


@pytest.mark.parametrize(
    ("by", "outcome", "lacks"),
    [
        ("measure", None, True),
        ("measure", last("failed", "generator_unavailable", 2_000), True),
        ("measure", last("failed", "overloaded", 2_000), True),
        ("measure", last("failed", "internal_error", 2_000), True),
        ("measure", last("failed", "recipe_changed", 2_000), False),
        ("measure", last("failed", "deadline_exceeded", 2_000), False),
        ("measure", last("kept", "not_better", 1_000), False),
        ("measure", last("kept", "not_better", 999), True),
        ("shadow", None, False),
        ("refine", last("kept", "not_better", 1_000), False),
    ],
)
def test_a_refine_is_lacking_that_never_was_or_found_the_refiner_away(
    by: Literal["measure", "refine", "shadow"], outcome: RefineOutcome | None, lacks: bool
) -> None:
    task = measured(by, 0.7, 0.7, refine=outcome)
    assert task.measurement is not None
    found = task.measurement.model_copy(update={"at": 1_000})
    task = task.model_copy(update={"measurement": found})
    standing = Standing({task.edge_model: BARS}, measured=(task.edge_model,))
    assert standing.lacks_refine(task) == lacks
    by_hand = task.policy.model_copy(update={"refine": "manual"})
    assert not standing.lacks_refine(task.model_copy(update={"policy": by_hand}))
