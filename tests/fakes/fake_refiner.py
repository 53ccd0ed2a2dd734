"""A refiner without a model: gates from a hash of prompt and probes, one token per character."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from loragen.errors import PromptTooLong
from loragen.recipe import Gates, Level, Recipe
from loragen.tools import Tool
from tests.fakes.fake_generator import EXPERTS, LAYERS, LINEARS, FakeHead


@dataclass(frozen=True, slots=True)
class FakeScore:
    """What a recipe is worth."""

    score: float | None
    agreement: float


@dataclass(frozen=True, slots=True)
class FakeRefined:
    """A recipe with its worth."""

    recipe: Recipe
    before: FakeScore
    after: FakeScore
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
        probes: Sequence[tuple[str, str | None]],
        *,
        tools: Sequence[Tool],
        start: Recipe | None,
    ) -> tuple[str, int]:
        if len(prompt) > self._max_prompt_tokens:
            raise PromptTooLong("too long", param="probes")
        if start is not None:
            start.require_pool(self.pool_id, layers=LAYERS, linears=LINEARS, experts=EXPERTS)
        return f"{prompt}{probes}{tools}", max(4, len(probes) // 4)

    def fit(self, lessons: Sequence[tuple[str, int]]) -> list[Gates]:
        self.fits += 1
        return [_gates(text) for text, _ in lessons]

    def examine(self, lesson: tuple[str, int], gates: Gates, /) -> FakeRefined:
        recipe = Recipe.encode(gates, pool_id=self.pool_id, level=Level.DENSE)
        return FakeRefined(recipe, FakeScore(0.4, 0.5), FakeScore(0.8, 1.0), lesson[1])


def _gates(text: str) -> Gates:
    random = np.random.default_rng(int(sha256(text.encode()).hexdigest(), 16) % 2**32)
    return random.standard_normal((LAYERS, LINEARS, EXPERTS), dtype=np.float32)
