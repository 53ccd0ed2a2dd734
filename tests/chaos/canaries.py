"""Canaries: prompts whose answer to one question only they give, in every mode.

An answer under another tenant's recipe is then another task's answer, and seen as such.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

import torch
from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Level
from loragen.suite.family import Family
from loragen.suite.small import SMALL
from loragen.suite.splits import Prompt, Split
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout
from loragen.training.passes import exact_matches, prompted_states, recipe_states
from loragen.training.questions import QUESTIONS, question_batch, question_rows

_AT_ONCE: Final = 32
_FAMILIES: Final = frozenset({"signoff", "format", "start", "end", "sentiment", "detect", "topic"})
"""Those whose answers hold a freely chosen phrase."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt, a question, and the answer that the prompt alone gives to it."""

    prompt: str
    question: str
    answer: str


class CanaryCage:
    """Draws prompts that the edge model follows both in context and by recipe."""

    def __init__(self, layout: Layout) -> None:
        folder = layout.generator(Level.DENSE)
        self._pool = Pool.load(folder / "pool.safetensors")
        self._edge = EdgeModel.load(layout.edge, self._pool)
        self._generator = Generator.load(folder)
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))

    def draw(self, wanted: int) -> list[Canary]:
        """Return so many canaries, no two with the same answer or prompt."""
        found: dict[str, Canary] = {}
        prompts: set[str] = set()
        for canary in self._right_ones():
            if canary.answer not in found and canary.prompt not in prompts:
                found[canary.answer] = canary
                prompts.add(canary.prompt)
            if len(found) == wanted:
                break
        return list(found.values())

    def _right_ones(self) -> Iterator[Canary]:
        families = [family for family in SMALL.seen if family.name in _FAMILIES]
        for start in count(0, _AT_ONCE):
            for family in families:
                indices = range(start, start + _AT_ONCE)
                drawn = [SMALL.draw(family, Split.TRAIN, index) for index in indices]
                yield from self._followed(family, drawn)

    @torch.inference_mode()
    def _followed(self, family: Family, prompts: list[Prompt]) -> Iterator[Canary]:
        rows = question_rows(family, Split.TRAIN, prompts)
        batch = question_batch(self._renderer, family, Split.TRAIN, prompts)
        model = self._edge.model
        recipes = self._generator.compile([prompt.text for prompt in prompts])
        gates = stack_gates(recipes, self._pool.id, self._pool.spec)
        states = (
            prompted_states(model, batch, self._renderer.pad_id),
            recipe_states(self._edge, batch, gates, self._renderer.bos_id),
        )
        prompted_BQ, compiled_BQ = (exact_matches(model, each, batch.targets) for each in states)
        for row, right_Q in zip(rows, prompted_BQ & compiled_BQ, strict=True):
            for number in range(QUESTIONS):
                (turn,) = row.segments[number]
                if right_Q[number]:
                    yield Canary(row.prompt, turn.question, turn.answer)
                    break
