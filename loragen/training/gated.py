"""Gated: what one prompt is served by, as its server would find out: measure, refine, gate."""

from dataclasses import dataclass
from typing import Final

from loragen.errors import InvalidRequest
from loragen.gate import Gate, Refusal
from loragen.method.fidelity import Fidelity
from loragen.method.refiner import Refiner
from loragen.recipe import Recipe

SMALL_GATE: Final = Gate(max_doubt=0.04)
"""The gate of the small checkpoint, as `config/small.yaml` sets it."""
DEMO_GATE: Final = Gate(max_doubt=0.05, min_agreement=0.85)
"""The gate of the demo checkpoint, as `config/demo.yaml` sets it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The recipe that serves a prompt, or None for the prompt itself, and what was measured.

    `first` is None where it cannot be measured, `second` where it was not refined.
    """

    recipe: Recipe | None
    first: Fidelity | None
    second: Fidelity | None = None
    refusal: Refusal | None = None

    @property
    def is_one_pass(self) -> bool:
        """Whether the recipe serves as the generator made it."""
        return self.recipe is not None and self.second is None


def choose(refiner: Refiner, prompt: str, recipe: Recipe, gate: Gate) -> Choice:
    """Measure a prompt's recipe, refine it if that may help, and hold it against the gate."""
    try:
        first = refiner.measure(prompt, None, recipe).fidelity
    except InvalidRequest:  # too few different messages to measure it on
        return Choice(None, None)
    refusal = refuse(gate, first)
    if not is_mendable(gate, first):
        return Choice(recipe if refusal is None else None, first, refusal=refusal)
    try:
        lesson = refiner.lesson(prompt, None, start=recipe)
    except InvalidRequest:
        return Choice(None, first, refusal=refusal)
    refined = refiner.examine(lesson, *refiner.fit([lesson]))
    refusal = refuse(gate, refined.after)
    return Choice(refined.recipe if refusal is None else None, first, refined.after, refusal)


def refuse(gate: Gate, fidelity: Fidelity) -> Refusal | None:
    """Return why a recipe of this fidelity does not serve, None where it does."""
    return gate.refusal(fidelity.score, fidelity.doubt, fidelity.agreement)


def is_mendable(gate: Gate, fidelity: Fidelity) -> bool:
    """Whether a server refines a task by itself whose recipe has this fidelity."""
    return refuse(gate, fidelity) == "low_fidelity" and not fidelity.does_harm
