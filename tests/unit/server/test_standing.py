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
