"""Batches of the refiner's actor: order, one fit, and failures that stay with their task."""

from collections.abc import Sequence
from typing import Any

import pytest

from loragen.errors import ArtifactCorrupt, LoragenError, PromptTooLong, RecipeInvalid
from loragen.wire import ProbeText, RefineReply, RefineRequest
from router_service.refiner_actor import RefinerActor
from tests.fakes.fake_refiner import FakeRefined, FakeRefiner

PROBES = tuple(ProbeText(input=f"Question {number}?") for number in range(8))


class BrokenRefiner(FakeRefiner):
    def fit(self, lessons: Sequence[tuple[str, int]]) -> list[Any]:
        raise RuntimeError(f"cannot fit {lessons}")


class DivergingRefiner(FakeRefiner):
    def examine(self, lesson: tuple[str, int], gates: Any, /) -> FakeRefined:
        if lesson[0].startswith("wild"):
            raise RecipeInvalid("gates must be finite")
        return super().examine(lesson, gates)


def request(prompt: str) -> RefineRequest:
    return RefineRequest(edge_model="one", prompt=prompt, probes=PROBES)


async def test_a_batch_is_fitted_at_once_and_answered_in_order() -> None:
    refiner = FakeRefiner()
    actor = RefinerActor("one", lambda: refiner)
    replies = await actor.refine_batch([request("a"), request("b"), request("a")])
    ids = [reply.recipe_id for reply in replies if isinstance(reply, RefineReply)]
    assert ids[0] == ids[2] != ids[1]
    assert refiner.fits == 1


@pytest.mark.parametrize(
    ("refiner", "prompt", "kind"),
    [
        (FakeRefiner(max_prompt_tokens=4), "x" * 5, PromptTooLong),
        (DivergingRefiner(), "wild", RecipeInvalid),
    ],
)
async def test_one_task_fails_alone(
    refiner: FakeRefiner, prompt: str, kind: type[LoragenError]
) -> None:
    batch = [request("a"), request(prompt), request("b")]
    outcomes = await RefinerActor("one", lambda: refiner).refine_batch(batch)
    assert [type(outcome) for outcome in outcomes] == [RefineReply, kind, RefineReply]


async def test_a_batch_of_nothing_but_refusals_fits_nothing() -> None:
    refiner = FakeRefiner(max_prompt_tokens=1)
    outcomes = await RefinerActor("one", lambda: refiner).refine_batch([request("long")])
    assert isinstance(outcomes[0], PromptTooLong)
    assert refiner.fits == 0


async def test_a_failing_model_fails_its_batch_and_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (outcome,) = await RefinerActor("one", BrokenRefiner).refine_batch([request("private")])
    assert type(outcome) is LoragenError
    assert "private" not in str(outcome) + caplog.text


async def test_what_cannot_be_loaded_is_tried_again() -> None:
    loads: list[int] = []

    def load() -> FakeRefiner:
        loads.append(1)
        if len(loads) == 1:
            raise ArtifactCorrupt("no pool")
        return FakeRefiner()

    actor = RefinerActor("one", load)
    (first,), (second,) = [await actor.refine_batch([request("a")]) for _ in range(2)]
    assert isinstance(first, ArtifactCorrupt)
    assert isinstance(second, RefineReply)
    await actor.refine_batch([request("a")])
    assert len(loads) == 2
