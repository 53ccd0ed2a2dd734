"""Refiner actor: one process that measures and refines tasks of one edge model.

A plain class: `router_service.app` turns it into a Ray Serve deployment, tests use it as it is. It
loads the edge model when it is first asked: an installation that does neither pays nothing for it.
One task's failure is that task's alone.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

from loragen.errors import LoragenError, RecipeMismatch
from loragen.recipe import Recipe
from loragen.tools import Tool
from loragen.wire import MeasureReply, MeasureRequest, Probes, RefineReply, RefineRequest

logger = logging.getLogger(__name__)

GENERATOR_ID: Final = sha256(b"loragen-refine/1").hexdigest()
"""In place of a generator's id in what is known of a refined recipe."""


class Score(Protocol):
    """A recipe's fidelity, as `loragen.method.fidelity.Fidelity`."""

    @property
    def score(self) -> float | None: ...  # noqa: D102 - named by the class

    @property
    def agreement(self) -> float: ...  # noqa: D102

    @property
    def does_harm(self) -> bool: ...  # noqa: D102

    @property
    def doubt(self) -> float | None: ...  # noqa: D102


class Measured(Protocol):
    """A measured recipe, as `loragen.method.refiner.Measured`."""

    @property
    def fidelity(self) -> Score: ...  # noqa: D102 - named by the class

    @property
    def probes(self) -> int: ...  # noqa: D102


class Refined(Protocol):
    """A refined task, as `loragen.method.refiner.Refined`."""

    @property
    def recipe(self) -> Recipe: ...  # noqa: D102 - named by the class

    @property
    def before(self) -> Score: ...  # noqa: D102

    @property
    def after(self) -> Score: ...  # noqa: D102

    @property
    def fitted(self) -> int: ...  # noqa: D102

    @property
    def held_out(self) -> int: ...  # noqa: D102


class Refiner(Protocol):
    """A loaded refiner, as `loragen.method.refiner.Refiner`; lessons and gates are its own."""

    pool_id: str
    template_hash: str

    def lesson(
        self,
        prompt: str,
        probes: Sequence[tuple[str, str | None]] | None,
        *,
        tools: Sequence[Tool],
        start: Recipe | None,
    ) -> Any:
        """Read a task; without probes make some up.

        Raises:
            LoragenError: why it cannot be refined.
        """

    def measure(
        self,
        prompt: str,
        probes: Sequence[tuple[str, str | None]] | None,
        recipe: Recipe,
        *,
        tools: Sequence[Tool],
    ) -> Measured:
        """Return what a task's recipe is worth.

        Raises:
            LoragenError: why it cannot be measured.
        """

    def fit(self, lessons: Sequence[Any], *, deadline: float) -> Sequence[Any]:
        """Return the gates fitted for each lesson.

        Raises:
            DeadlineExceeded: not by the deadline, of `time.monotonic()`.
        """

    def examine(self, lesson: Any, gates: Any, /) -> Refined:
        """Make gates a recipe and measure it.

        Raises:
            LoragenError: they make none.
        """


Load = Callable[[], Refiner]
_Asked = TypeVar("_Asked")
_Found = TypeVar("_Found")
Outcome = RefineReply | LoragenError


class RefinerActor:
    """Measures and refines tasks of one edge model, one call after the other."""

    def __init__(self, edge_model: str, load: Load) -> None:
        self._edge_model = edge_model
        self._load = load
        self._refiner: Refiner | None = None
        self._turn = asyncio.Lock()  # the edge model holds the gates of one batch at a time

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure the recipe of one task.

        Raises:
            LoragenError: why it cannot be measured.
        """
        return await self._in_turn(self._measure, request)

    async def refine_batch(
        self, requests: Sequence[RefineRequest], *, deadline: float = math.inf
    ) -> list[Outcome]:
        """Refine each request's task, in order; what cannot be refined is its error.

        At the deadline, of `time.monotonic()`, nobody waits for it any more.
        """
        return await self._in_turn(partial(self._refine_all, deadline=deadline), requests)

    def require_pool(self, recipe: str | None) -> None:
        """Refuse a recipe of another pool at once, not when its turn comes; None is of any.

        Before the edge model is loaded nothing is known of its pool, nor is anybody waiting.

        Raises:
            RecipeMismatch, RecipeInvalid: it is of another pool, or none.
        """
        if recipe is None or self._refiner is None:
            return
        if Recipe.from_text(recipe).pool_id != self._refiner.pool_id:
            raise RecipeMismatch("the recipe is of another pool")

    async def _in_turn(self, work: Callable[[_Asked], _Found], asked: _Asked) -> _Found:
        """Do a piece of work in a thread, one at a time.

        A thread cannot be stopped: where its caller gives up the turn still lasts until it ends.
        """
        await self._turn.acquire()
        running = asyncio.ensure_future(asyncio.to_thread(work, asked))
        running.add_done_callback(self._end_turn)
        return await asyncio.shield(running)

    def _end_turn(self, done: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not done.cancelled():
            done.exception()  # a caller that gave up does not ask for it

    def _measure(self, request: MeasureRequest) -> MeasureReply:
        started = time.monotonic()
        try:
            measured = self._loaded().measure(
                request.prompt,
                _pairs(request.probes),
                Recipe.from_text(request.recipe),
                tools=request.tools,
            )
        except LoragenError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model raises, its caller gets an answer
            logger.error("measuring failed", extra={"error": type(error).__name__})
            raise LoragenError("the refiner failed") from None
        return MeasureReply(
            request_id=request.request_id,
            fidelity=measured.fidelity.score,
            agreement=measured.fidelity.agreement,
            doubt=measured.fidelity.doubt,
            does_harm=measured.fidelity.does_harm,
            probes=measured.probes,
            measure_seconds=time.monotonic() - started,
        )

    def _refine_all(
        self, requests: Sequence[RefineRequest], deadline: float = math.inf
    ) -> list[Outcome]:
        started = time.monotonic()
        try:
            refined = self._refine_together(self._loaded(), requests, deadline)
        except LoragenError as error:  # the edge model cannot be loaded, or it took too long
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, its callers get an answer
            # Neither the traceback nor the text: a tokenizer's error may quote the prompt.
            logger.error("refining failed", extra={"error": type(error).__name__})
            return [LoragenError("the refiner failed")] * len(requests)
        seconds = time.monotonic() - started
        logger.info(
            "tasks refined",
            extra={
                "edge_model": self._edge_model,
                "tasks": len(requests),
                "seconds": round(seconds, 2),
            },
        )
        return [
            each if isinstance(each, LoragenError) else self._reply(each, request, seconds)
            for request, each in zip(requests, refined, strict=True)
        ]

    def _refine_together(
        self, refiner: Refiner, requests: Sequence[RefineRequest], deadline: float
    ) -> list[Refined | LoragenError]:
        read = [_alone(partial(_read, refiner, request)) for request in requests]
        lessons = [each for each in read if not isinstance(each, LoragenError)]
        fitted = iter(refiner.fit(lessons, deadline=deadline) if lessons else ())
        return [
            each
            if isinstance(each, LoragenError)
            else _alone(partial(refiner.examine, each, next(fitted)))
            for each in read
        ]

    def _loaded(self) -> Refiner:
        if self._refiner is None:
            started = time.monotonic()
            self._refiner = self._load()
            seconds = round(time.monotonic() - started, 2)
            extra = {"edge_model": self._edge_model, "seconds": seconds}
            logger.info("refiner loaded", extra=extra)
        return self._refiner

    def _reply(self, refined: Refined, request: RefineRequest, seconds: float) -> RefineReply:
        refiner = self._loaded()
        return RefineReply(
            request_id=request.request_id,
            recipe=refined.recipe.text,
            recipe_id=refined.recipe.id,
            pool_id=refiner.pool_id,
            generator_id=GENERATOR_ID,
            template_hash=refiner.template_hash,
            fidelity_before=refined.before.score,
            fidelity_after=refined.after.score,
            agreement_before=refined.before.agreement,
            agreement_after=refined.after.agreement,
            does_harm_before=refined.before.does_harm,
            does_harm_after=refined.after.does_harm,
            doubt=refined.after.doubt,
            probes=refined.fitted + refined.held_out,
            held_out=refined.held_out,
            refine_seconds=seconds,
        )


def _read(refiner: Refiner, request: RefineRequest) -> Any:
    return refiner.lesson(
        request.prompt,
        _pairs(request.probes),
        tools=request.tools,
        start=None if request.start is None else Recipe.from_text(request.start),
    )


def _alone(work: Callable[[], Any]) -> Any:
    """Return what came of work for one task, or its error, which is no other task's."""
    try:
        return work()
    except LoragenError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever a model raises, the others get answers
        # Neither the traceback nor the text: a tokenizer's error may quote the prompt.
        logger.error("one task of a refine failed", extra={"error": type(error).__name__})
        return LoragenError("the refiner failed")


def _pairs(probes: Probes | None) -> list[tuple[str, str | None]] | None:
    return None if probes is None else [(probe.input, probe.output) for probe in probes]
