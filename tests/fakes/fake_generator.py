"""A generator without a model: gates from a hash of the prompt, one token per character."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from loragen.errors import PromptTooLong
from loragen.recipe import Level, Recipe

LAYERS, LINEARS, EXPERTS = 2, 3, 4


@dataclass(frozen=True, slots=True)
class FakeHead:
    """What the fake's recipes are for."""

    generator_id: str = "a" * 64
    pool_id: str = "b" * 64
    template_hash: str = "c" * 64
    level: Level = Level.DENSE


class FakeGenerator:
    """Compiles at once, or after `seconds` per call; counts its calls."""

    def __init__(self, *, seconds: float = 0.0, max_prompt_tokens: int = 251) -> None:
        self.head = FakeHead()
        self.max_prompt_tokens = max_prompt_tokens
        self.calls = 0
        self._seconds = seconds
        self._running = threading.Lock()

    @classmethod
    def load(cls, _: Path) -> "FakeGenerator":
        """Return a fake in place of the generator in a folder."""
        return cls()

    def prompt_tokens(self, prompt: str) -> int:
        return len(prompt)

    def compile(self, prompts: Sequence[str]) -> list[Recipe]:
        assert self._running.acquire(blocking=False), "two batches at once"
        try:
            self.calls += 1
            time.sleep(self._seconds)
            return [self._recipe(prompt) for prompt in prompts]
        finally:
            self._running.release()

    def _recipe(self, prompt: str) -> Recipe:
        if len(prompt) > self.max_prompt_tokens:
            raise PromptTooLong("too long")
        random = np.random.default_rng(int(sha256(prompt.encode()).hexdigest(), 16) % 2**32)
        gates = random.standard_normal((LAYERS, LINEARS, EXPERTS), dtype=np.float32)
        return Recipe.encode(gates, pool_id=self.head.pool_id, level=self.head.level)
