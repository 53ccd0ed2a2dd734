"""Batches of the refiner's actor: order, one fit, and failures that stay with their task."""

import asyncio
import time
from collections.abc import Sequence
from threading import Event
from typing import Any

import numpy as np
import pytest

from loragen.errors import (
    ArtifactCorrupt,
    DeadlineExceeded,
    LoragenError,
    PromptTooLong,
    RecipeInvalid,
    RecipeMismatch,
)
from loragen.recipe import Level, Recipe
from loragen.wire import MeasureRequest, ProbeText, RefineReply, RefineRequest
from router_service.refiner_actor import RefinerActor
from tests.fakes.fake_generator import EXPERTS, LAYERS, LINEARS
from tests.fakes.fake_refiner import FakeMeasured, FakeRefined, FakeRefiner

PROBES = tuple(ProbeText(input=f"Question {number}?") for number in range(8))


class BrokenRefiner(FakeRefiner):
    def fit(self, lessons: Sequence[tuple[str, int]], *, deadline: float) -> list[Any]:
        raise RuntimeError(f"cannot fit {lessons}")


class DivergingRefiner(FakeRefiner):
    def examine(self, lesson: tuple[str, int], gates: Any, /) -> FakeRefined:
        if lesson[0].startswith("wild"):
            raise RecipeInvalid("gates must be finite")
        return super().examine(lesson, gates)


class OddRefiner(FakeRefiner):
    def lesson(self, prompt: str, *args: Any, **options: Any) -> tuple[str, int]:
        if prompt == "odd":
            raise IndexError(prompt)
        return super().lesson(prompt, *args, **options)


class HeldRefiner(FakeRefiner):
    """Measures when it is let go on; tells how many measures go on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = 0
        self.may_end = Event()
        self.has_begun = Event()

    def measure(self, *args: Any, **options: Any) -> FakeMeasured:
        self.at_once += 1
        assert self.at_once == 1
        self.has_begun.set()
        assert self.may_end.wait(10)
        self.at_once -= 1
        return super().measure(*args, **options)


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
        (OddRefiner(), "odd", LoragenError),
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


async def test_a_measure_that_nobody_waits_for_keeps_its_turn_until_it_ends() -> None:
    """Two at once would read each other's gates."""
    refiner = HeldRefiner()
    actor = RefinerActor("one", lambda: refiner)
    (reply,) = await actor.refine_batch([request("a")])
    assert isinstance(reply, RefineReply)
    asked = MeasureRequest(edge_model="one", prompt="a", recipe=reply.recipe)
    first = asyncio.create_task(actor.measure(asked))
    await asyncio.to_thread(refiner.has_begun.wait, 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(actor.measure(asked))
    done, _ = await asyncio.wait([second], timeout=0.2)
    assert not done
    refiner.may_end.set()
    assert (await second).probes == 16


async def test_a_batch_that_nobody_waits_for_any_more_ends() -> None:
    refiner = FakeRefiner()
    actor = RefinerActor("one", lambda: refiner)
    past = time.monotonic()
    outcomes = await actor.refine_batch([request("a"), request("b")], deadline=past)
    assert [type(outcome) for outcome in outcomes] == [DeadlineExceeded] * 2
    assert refiner.fits == 0


async def test_a_recipe_of_another_pool_is_refused_once_the_pool_is_known() -> None:
    actor = RefinerActor("one", FakeRefiner)
    (reply,) = await actor.refine_batch([request("a")])
    assert isinstance(reply, RefineReply)
    gates = np.zeros((LAYERS, LINEARS, EXPERTS), np.float32)
    other = Recipe.encode(gates, pool_id="ab" * 32, level=Level.DENSE).text
    RefinerActor("one", FakeRefiner).require_pool(other)  # nothing is loaded
    for own in (reply.recipe, None):
        actor.require_pool(own)
    with pytest.raises(RecipeMismatch):
        actor.require_pool(other)
