"""A refiner without a model: gates from a hash of prompt and probes, one token per character."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from loragen.errors import DeadlineExceeded, PromptTooLong
from loragen.recipe import Gates, Level, Recipe
from loragen.tools import Tool
from tests.fakes.fake_generator import EXPERTS, LAYERS, LINEARS, FakeHead


@dataclass(frozen=True, slots=True)
class FakeScore:
    """What a recipe is worth."""

    score: float | None
    agreement: float
    does_harm: bool = False
    doubt: float | None = 0.02


@dataclass(frozen=True, slots=True)
class FakeMeasured:
    """What a recipe was found to be worth."""

    fidelity: FakeScore
    probes: int


@dataclass(frozen=True, slots=True)
class FakeRefined:
    """A recipe with its worth."""

    recipe: Recipe
    before: FakeScore
    after: FakeScore
    fitted: int
    held_out: int


class FakeRefiner:
    """Refines at once; counts its fits. A start is half as good as what becomes of it."""

    pool_id = FakeHead().pool_id
    template_hash = FakeHead().template_hash

    def __init__(self, *, max_prompt_tokens: int = 251) -> None:
        self.fits = 0
        self._max_prompt_tokens = max_prompt_tokens

    def lesson(
        self,
        prompt: str,
        probes: Sequence[tuple[str, str | None]] | None,
        *,
        tools: Sequence[Tool],
        start: Recipe | None,
    ) -> tuple[str, int]:
        if len(prompt) > self._max_prompt_tokens:
            raise PromptTooLong("too long", param="probes")
        if start is not None:
            start.require_pool(self.pool_id, layers=LAYERS, linears=LINEARS, experts=EXPERTS)
        return f"{prompt}{probes}{tools}", 48 if probes is None else len(probes)

    def measure(
        self,
        prompt: str,
        probes: Sequence[tuple[str, str | None]] | None,
        recipe: Recipe,
        *,
        tools: Sequence[Tool],
    ) -> FakeMeasured:
        if len(prompt) > self._max_prompt_tokens:
            raise PromptTooLong("too long", param="probes")
        recipe.require_pool(self.pool_id, layers=LAYERS, linears=LINEARS, experts=EXPERTS)
        return FakeMeasured(FakeScore(0.7, 0.75), 16 if probes is None else len(probes))

    def fit(self, lessons: Sequence[tuple[str, int]], *, deadline: float) -> list[Gates]:
        if time.monotonic() > deadline:
            raise DeadlineExceeded("too late")
        self.fits += 1
        return [_gates(text) for text, _ in lessons]

    def examine(self, lesson: tuple[str, int], gates: Gates, /) -> FakeRefined:
        recipe = Recipe.encode(gates, pool_id=self.pool_id, level=Level.DENSE)
        held_out = max(4, lesson[1] // 4)
        before, after = FakeScore(0.4, 0.5), FakeScore(0.8, 1.0)
        return FakeRefined(recipe, before, after, lesson[1] - held_out, held_out)


def _gates(text: str) -> Gates:
    random = np.random.default_rng(int(sha256(text.encode()).hexdigest(), 16) % 2**32)
    return random.standard_normal((LAYERS, LINEARS, EXPERTS), dtype=np.float32)
