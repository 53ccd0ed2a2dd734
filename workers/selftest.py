"""Boot self-test: the engine mixes recipes, before the worker answers its first request.

vLLM skips a plugin that does not load and would then serve without it; a pool in the wrong
layout would answer nonsense. Three generations through the real engine tell.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from loragen.errors import SelfTestFailed
from loragen.recipe import GateDtype, Gates, Level, Recipe
from workers.intake import RecipeIntake

_PROMPT: Final = [1, 2, 3, 4, 5]
_TOKENS: Final = 2
_LOGPROBS: Final = 5

Scores = list[dict[int, float]]
"""Per generated token: log-probability of the most likely tokens."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Compares the engine to itself: base model, zero gates, random gates."""

    engine: Any
    intake: RecipeIntake

    async def run(self) -> None:
        """Generate three times and compare.

        Raises:
            SelfTestFailed: recipes do nothing, or disturb the base model.
        """
        pool = self.intake.pool
        shape = (pool.layers, len(pool.linears), pool.experts)
        gates = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        try:
            base = await self._generate("base")
            zero = await self._generate("zero", self._encode(np.zeros_like(gates)))
            mixed = await self._generate("mixed", self._encode(gates))
        except (EngineDeadError, EngineGenerateError) as error:
            raise SelfTestFailed("the engine died of a recipe: is our plugin loaded?") from error
        if not all(map(math.isfinite, (p for step in base + mixed for p in step.values()))):
            raise SelfTestFailed("the edge model's log-probabilities are not finite")
        if zero != base:
            raise SelfTestFailed("a recipe of zero gates changes the edge model's answer")
        if mixed == base:
            raise SelfTestFailed("a recipe does not change the edge model's answer")

    def _encode(self, gates: Gates) -> Recipe:
        return Recipe.encode(
            gates, pool_id=self.intake.pool_id, level=Level.DENSE, dtype=GateDtype.FLOAT16
        )

    async def _generate(self, name: str, recipe: Recipe | None = None) -> Scores:
        if recipe is None:
            return await self._scores(name, None)
        with self.intake.admit(recipe.text) as lora_request:
            return await self._scores(name, lora_request)

    async def _scores(self, name: str, lora_request: Any) -> Scores:
        params = SamplingParams(
            temperature=0, max_tokens=_TOKENS, logprobs=_LOGPROBS, ignore_eos=True
        )
        outputs = self.engine.generate(
            tokens_input(_PROMPT), params, f"self-test-{name}", lora_request=lora_request
        )
        # One growing output per step: the last one holds all.
        *_, output = [output async for output in outputs]
        steps = output.outputs[0].logprobs
        return [{token: entry.logprob for token, entry in step.items()} for step in steps]
