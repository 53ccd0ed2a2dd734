"""One rule decides whether a recipe serves: what is worth too little or not known does not."""

from dataclasses import replace

import pytest

from loragen.gate import Gate
from loragen.measurement import Measurement
from loragen.task import Policy, RecipeRef, Task

RECIPE = "ab" * 32


@pytest.mark.parametrize(
    ("fidelity", "doubt", "agreement", "refusal"),
    [
        (0.8, 0.1, 0.7, None),
        (1.2, 0.0, 1.0, None),
        (0.79, 0.1, 1.0, "low_fidelity"),
        (0.99, 0.1, 0.69, "low_fidelity"),
        (None, 0.1, 0.0, "prompt_has_no_effect"),
        (1.0, 0.11, 1.0, "model_unsure"),
        (0.1, 0.11, 0.0, "model_unsure"),
        (None, 0.11, 1.0, "model_unsure"),
        (1.0, None, None, None),
    ],
)
def test_a_recipe_serves_that_is_faithful_to_a_model_that_knows_what_to_say(
    fidelity: float | None, doubt: float | None, agreement: float | None, refusal: str | None
) -> None:
    gate = Gate(0.8, max_doubt=0.1, min_agreement=0.7)
    assert gate.refusal(fidelity, doubt, agreement) == refusal


def test_doubt_and_agreement_count_only_where_they_are_asked_for() -> None:
    assert Gate(0.8).refusal(0.9, 5.0, 0.0) is None
    assert Gate(0.0, max_doubt=0.1, min_agreement=1.0).refusal(None, 5.0, 0.0) is None


@pytest.mark.parametrize(
    ("fidelity", "agreement", "refusal"),
    [
        (0.95, 1.0, None),
        (0.95, 0.69, "low_fidelity"),
        (0.94, 1.0, "model_unsure"),
        (None, 1.0, "model_unsure"),
    ],
)
def test_what_the_generator_knows_how_to_recover_is_not_doubted(
    fidelity: float | None, agreement: float, refusal: str | None
) -> None:
    gate = Gate(0.8, max_doubt=0.1, min_agreement=0.7, trust_from_fidelity=0.95)
    assert gate.refusal(fidelity, 5.0, agreement) == refusal
    is_refined = gate.is_to_be_refined(fidelity, 5.0, agreement)
    assert is_refined == (refusal == "low_fidelity")


@pytest.mark.parametrize(
    ("fidelity", "doubt", "agreement", "is_made_up", "is_to_be_refined"),
    [
        (0.9, 0.1, 0.9, True, False),
        (0.9, 0.1, 0.89, True, True),  # it serves, and may become better
        (0.9, 0.1, 0.69, True, True),
        (0.6, 0.1, 1.0, True, True),
        (0.59, 0.1, 1.0, True, False),  # the generator misread the prompt
        (0.59, 0.1, 1.0, False, True),
        (0.9, 0.11, 0.5, True, False),
        (None, 0.1, 0.5, False, False),
        (0.9, None, None, True, False),
        (0.7, None, None, True, True),
    ],
)
def test_what_is_refined_by_itself(
    fidelity: float | None,
    doubt: float | None,
    agreement: float | None,
    is_made_up: bool,
    is_to_be_refined: bool,
) -> None:
    gate = Gate(
        0.8, max_doubt=0.1, min_agreement=0.7, refine_below_agreement=0.9, refine_from_fidelity=0.6
    )
    found = gate.is_to_be_refined(fidelity, doubt, agreement, is_made_up=is_made_up)
    assert found == is_to_be_refined
    assert not replace(gate, min_fidelity=0.0).is_to_be_refined(0.1, 0.0, 0.0)


def task(measurement: Measurement | None) -> Task:
    recipe = RecipeRef(
        id=RECIPE, bytes=1, pool_id=RECIPE, generator_id=RECIPE, level=1, template_hash=RECIPE
    )
    return Task(
        id="task_x", tenant="t", edge_model="m", prompt="p", created_at=1, prompt_tokens=1,
        policy=Policy(), recipe=recipe, measurement=measurement,
    )  # fmt: skip


def test_a_task_holds_its_measure_against_its_models_bar() -> None:
    unsure = task(Measurement.of(RECIPE, fidelity=1.0, doubt=0.2))
    assert unsure.withheld(Gate()) is None
    assert unsure.withheld(Gate(max_doubt=0.2)) is None
    assert unsure.withheld(Gate(max_doubt=0.19)) == "model_unsure"
    assert task(None).withheld(Gate(max_doubt=0.1)) is None
    differs = task(Measurement.of(RECIPE, fidelity=1.0, agreement=0.5))
    assert differs.withheld(Gate(min_agreement=0.5)) is None
    assert differs.withheld(Gate(min_agreement=0.51)) == "low_fidelity"


def test_the_least_fidelity_is_the_tasks_own() -> None:
    poor = task(Measurement.of(RECIPE, fidelity=0.5))
    assert poor.withheld(Gate(min_fidelity=0.1)) == "low_fidelity"
    assert poor.model_copy(update={"min_fidelity": 0.5}).withheld(Gate(1.0)) is None


def test_a_task_remembers_a_bounded_number_of_measures() -> None:
    held = task(None)
    for number in range(20):
        measurement = Measurement.of(RECIPE, fidelity=number / 100)
        held = held.model_copy(update=held.remeasured(measurement))
    past = [each.fidelity for each in held.past_measurements]
    assert past == [number / 100 for number in range(11, 19)]
    assert held.measurement is not None
    assert held.measurement.fidelity == 0.19


@pytest.mark.parametrize(
    ("last", "waits"),
    [
        (Measurement.of("cd" * 32, fidelity=0.1), True),
        (Measurement.of("cd" * 32, fidelity=0.9, doubt=0.5), True),
        (Measurement.of("cd" * 32, fidelity=None), True),
        (Measurement.of("cd" * 32, fidelity=0.9), False),
        (Measurement.of("cd" * 32, failure="invalid_request"), False),
        (Measurement.of(RECIPE, fidelity=0.1), False),
        (None, False),
    ],
)
def test_a_new_recipe_is_on_probation_where_the_last_one_did_not_pass(
    last: Measurement | None, *, waits: bool
) -> None:
    assert task(last).is_on_probation(Gate(max_doubt=0.1)) is waits
    assert (
        not task(last).model_copy(update={"min_fidelity": 0.0}).is_on_probation(Gate(max_doubt=0.1))
    )


def test_a_record_from_before_doubt_was_measured_is_judged_without_it() -> None:
    old = Measurement.model_validate({"recipe": RECIPE[:16], "fidelity": 0.9, "agreement": 1.0})
    assert task(old).withheld(Gate(max_doubt=0.01)) is None
    low = Measurement.model_validate({"recipe": RECIPE[:16], "fidelity": 0.5})
    assert task(low).withheld(Gate(max_doubt=0.01)) == "low_fidelity"
