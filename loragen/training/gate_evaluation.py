"""Gate evaluation: what a task gets that is measured, refined and held against the gate.

It does with unseen prompts what the router service and the gateway do: measures each recipe on
self-generated probes, refines the task on others, and serves it by the recipe, by the refined one
or by the prompt. The suite's questions, which no probe was drawn from, then tell what that was
worth.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import torch
from transformers import AutoTokenizer

from loragen.errors import InvalidRequest
from loragen.method.edge import EdgeModel
from loragen.method.fidelity import Fidelity
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.refine import RefineSpec
from loragen.method.refiner import Lesson, Refiner
from loragen.own_template import OwnTemplate
from loragen.recipe import Level, Recipe
from loragen.suite.family import Family
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.template import FILE_NAME, CompiledTemplate
from loragen.training.batches import Batch, Renderer
from loragen.training.checkpoint import Layout
from loragen.training.gate_figures import Outcome
from loragen.training.passes import exact_matches, prompted_states, recipe_states
from loragen.training.questions import question_batch

REFINED_AT_ONCE: Final = 32

T = TypeVar("T")


def load_refiner(layout: Layout, spec: RefineSpec) -> Refiner:
    """Return the refiner that a router service has for the shipped pool of a checkpoint."""
    return Refiner.load(
        layout.edge,
        layout.generator(Level.DENSE) / "pool.safetensors",
        own=OwnTemplate.load(layout.edge),
        compiled=CompiledTemplate.load(layout.edge / FILE_NAME),
        spec=spec,
    )


class GateEvaluator:
    """Measures and refines a checkpoint's tasks as its server would."""

    def __init__(self, layout: Layout, catalogue: Catalogue, spec: RefineSpec) -> None:
        folder = layout.generator(Level.DENSE)
        self._catalogue = catalogue
        self._generator = Generator.load(folder)
        self._pool = Pool.load(folder / "pool.safetensors")
        self._refiner = load_refiner(layout, spec)
        self._edge = EdgeModel.load(layout.edge, self._pool)
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))

    def outcomes(self, family: Family, split: Split, count: int) -> list[Outcome]:
        """Return what so many tasks of a family get."""
        drawn = [self._catalogue.draw(family, split, index) for index in range(count)]
        recipes = self._generator.compile([prompt.text for prompt in drawn])
        first, measured_in = _timed(
            lambda: [self._measure(*pair) for pair in zip(drawn, recipes, strict=True)]
        )
        (refined, second), refined_in = _timed(lambda: self._refine(drawn, recipes))
        seconds = {"measure": measured_in / count, "refine": refined_in / count}
        batch = question_batch(self._renderer, family, split, drawn)
        hits = {
            "full_prompt": self._prompted_hits(batch),
            "recipe": self._hits(batch, recipes),
            "refined": self._hits(batch, refined),
        }
        return [
            Outcome(
                family.name,
                first[row],
                second[row],
                {way: hits_BQ[row].tolist() for way, hits_BQ in hits.items()},
                seconds,
            )
            for row in range(count)
        ]

    def _measure(self, prompt: Prompt, recipe: Recipe) -> Fidelity | None:
        try:
            return self._refiner.measure(prompt.text, None, recipe).fidelity
        except InvalidRequest:  # too few different messages
            return None

    def _refine(
        self, prompts: Sequence[Prompt], recipes: Sequence[Recipe]
    ) -> tuple[list[Recipe], list[tuple[Fidelity, Fidelity] | None]]:
        """Return the refined recipes, and both fidelities; as they were without probes."""
        lessons = [self._lesson(*pair) for pair in zip(prompts, recipes, strict=True)]
        wanted = [lesson for lesson in lessons if lesson is not None]
        fitted = (
            (lesson, gates)
            for start in range(0, len(wanted), REFINED_AT_ONCE)
            for some in [wanted[start : start + REFINED_AT_ONCE]]
            for lesson, gates in zip(some, self._refiner.fit(some), strict=True)
        )
        refined: list[Recipe] = []
        fidelities: list[tuple[Fidelity, Fidelity] | None] = []
        for lesson, recipe in zip(lessons, recipes, strict=True):
            done = None if lesson is None else self._refiner.examine(*next(fitted))
            refined.append(recipe if done is None else done.recipe)
            fidelities.append(None if done is None else (done.before, done.after))
        return refined, fidelities

    def _lesson(self, prompt: Prompt, recipe: Recipe) -> Lesson | None:
        try:
            return self._refiner.lesson(prompt.text, None, start=recipe)
        except InvalidRequest:
            return None

    @torch.inference_mode()
    def _prompted_hits(self, batch: Batch) -> torch.Tensor:
        states = prompted_states(self._edge.model, batch, self._renderer.pad_id)
        return exact_matches(self._edge.model, states, batch.targets)

    @torch.inference_mode()
    def _hits(self, batch: Batch, recipes: Sequence[Recipe]) -> torch.Tensor:
        gates = stack_gates(recipes, self._pool.id, self._pool.spec)
        states = recipe_states(self._edge, batch, gates, self._renderer.bos_id)
        return exact_matches(self._edge.model, states, batch.targets)


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """Return what came of some work, and the seconds of a core it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started
