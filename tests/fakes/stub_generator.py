"""A generator without a model: a prompt's recipe is drawn from its hash."""

import asyncio
import hashlib
from collections import Counter

import numpy as np

from loragen.errors import GeneratorUnavailable, RecipeMismatch
from loragen.recipe import Level, Recipe
from loragen.tools import compile_text
from loragen.wire import (
    CompileReply,
    CompileRequest,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)
from tests.fakes.fake_worker import EXPERTS, LAYERS, LINEARS, POOL_ID, TEMPLATE_HASH

GENERATOR_ID = "ef" * 32
REFINER_ID = "fe" * 32


def recipe_of(prompt: str, *, pool_id: str = POOL_ID, experts: int = EXPERTS) -> Recipe:
    """Return the recipe this generator compiles a prompt to."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
    gates = np.random.default_rng(seed).normal(size=(LAYERS, LINEARS, experts))
    return Recipe.encode(gates.astype(np.float32), pool_id=pool_id, level=Level.DENSE)


def reply_of(recipe: Recipe) -> CompileReply:
    """Return the reply that brings a recipe."""
    return CompileReply(
        recipe=recipe.text,
        recipe_id=recipe.id,
        pool_id=recipe.pool_id,
        generator_id=GENERATOR_ID,
        level=1,
        template_hash=TEMPLATE_HASH,
        compile_seconds=0.01,
    )


class StubGenerator:
    """Compiles at once, unless told to fail or to wait."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.error: Exception | None = None
        self.pool_id = POOL_ID
        self.more_pools: tuple[str, ...] = ()
        self.experts = EXPERTS
        self.is_held = False
        self.reply: CompileReply | None = None
        self.refine_error: Exception | None = None
        self.refines: list[RefineRequest] = []
        self.fidelities: tuple[float | None, float | None] = (0.5, 0.9)
        self.measures: list[MeasureRequest] = []
        self.measure_error: Exception | None = None
        self.measured: tuple[float | None, float] = (0.9, 1.0)
        self.does_harm = False
        self.doubt: float | None = 0.02
        self.is_measuring_held = False

    def reset(self) -> None:
        """Forget what was asked and told."""
        self.__init__()  # type: ignore[misc]

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt."""
        text = compile_text(request.prompt, request.tools)
        self.calls[text] += 1
        # A flag and not an event, because tests set it from another thread.
        while self.is_held:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        if self.reply is not None:
            return self.reply
        pool_id = self.pool_id if request.pool_id is None else request.pool_id
        if pool_id not in self._pools():
            raise RecipeMismatch("no generator of that pool")
        return reply_of(recipe_of(text, pool_id=pool_id, experts=self.experts))

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure one recipe; it is worth what `measured` says, fidelity and agreement."""
        self.measures.append(request)
        while self.is_measuring_held:  # noqa: ASYNC110 - tests set it from another thread
            await asyncio.sleep(0.001)
        if self.measure_error is not None:
            raise self.measure_error
        if Recipe.from_text(request.recipe).pool_id not in self._pools():
            raise RecipeMismatch("the recipe is of another pool")
        fidelity, agreement = self.measured
        return MeasureReply(
            fidelity=fidelity,
            agreement=agreement,
            doubt=self.doubt,
            does_harm=self.does_harm,
            probes=len(request.probes or ()) or 16,
            measure_seconds=0.01,
        )

    async def refine(self, request: RefineRequest) -> RefineReply:
        """Refine one task; the result is worth what `fidelities` says."""
        self.refines.append(request)
        while self.is_held:  # noqa: ASYNC110 - tests set it from another thread
            await asyncio.sleep(0.001)
        if self.refine_error is not None:
            raise self.refine_error
        pool_id = self.pool_id
        if request.start is not None:
            pool_id = Recipe.from_text(request.start).pool_id
        if pool_id not in self._pools():
            raise RecipeMismatch("the start is of another pool")
        recipe = recipe_of(f"refined {request.prompt} {len(self.refines)}", pool_id=pool_id)
        before, after = self.fidelities
        return RefineReply(
            recipe=recipe.text,
            recipe_id=recipe.id,
            pool_id=recipe.pool_id,
            generator_id=REFINER_ID,
            template_hash=TEMPLATE_HASH,
            fidelity_before=before,
            fidelity_after=after,
            agreement_before=0.5,
            agreement_after=1.0,
            does_harm_before=self.does_harm,
            does_harm_after=False,
            doubt=self.doubt,
            probes=len(request.probes or ()) or 48,
            held_out=4,
            refine_seconds=0.01,
        )

    def _pools(self) -> tuple[str, ...]:
        return (self.pool_id, *self.more_pools)

    async def ping(self) -> None:
        """Return if it answers."""
        if isinstance(self.error, GeneratorUnavailable):
            raise self.error

    async def close(self) -> None:
        """Give back the connections."""
