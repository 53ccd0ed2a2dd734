"""Gated: what one prompt is served by, as its server would find out: measure, refine, gate."""

from dataclasses import dataclass, replace
from typing import Final

from loragen.errors import InvalidRequest
from loragen.gate import Gate, Refusal
from loragen.method.fidelity import Fidelity
from loragen.method.refiner import Refiner
from loragen.recipe import Recipe

SMALL_GATE: Final = Gate(max_doubt=0.04)
"""The gate of the small checkpoint, as `config/small.yaml` sets it."""
DEMO_GATE: Final = Gate(
    max_doubt=0.075,
    min_agreement=0.75,
    refine_below_agreement=0.9,
    refine_from_fidelity=0.6,
    trust_from_fidelity=0.9,
)
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
    is_one_pass: bool = False
    """Whether the recipe serves as the generator made it."""


def choose(refiner: Refiner, prompt: str, recipe: Recipe, gate: Gate) -> Choice:
    """Measure a prompt's recipe, refine it if that may help, and hold it against the gate."""
    try:
        first = refiner.measure(prompt, None, recipe).fidelity
    except InvalidRequest:  # too few different messages to measure it on
        return Choice(None, None)
    refusal = refuse(gate, first)
    as_made = Choice(
        recipe if refusal is None else None, first, refusal=refusal, is_one_pass=refusal is None
    )
    if not is_to_be_refined(gate, first):
        return as_made
    try:
        lesson = refiner.lesson(prompt, None, start=recipe)
    except InvalidRequest:
        return as_made
    refined = refiner.examine(lesson, *refiner.fit([lesson]))
    if is_better(gate, first, refined.before, refined.after):
        return Choice(refined.recipe, first, refined.after)
    # Where neither passes a server keeps the better one, and says what that is refused for.
    is_worse = (refined.after.score or 0.0) <= (refined.before.score or 0.0)
    reason = refusal if refusal is None or is_worse else refuse(gate, refined.after)
    return replace(as_made, second=refined.after, refusal=reason)


def refuse(gate: Gate, fidelity: Fidelity) -> Refusal | None:
    """Return why a recipe of this fidelity does not serve, None where it does."""
    return gate.refusal(fidelity.score, fidelity.doubt, fidelity.agreement)


def is_to_be_refined(gate: Gate, fidelity: Fidelity) -> bool:
    """Whether a server refines a task by itself whose recipe has this fidelity."""
    return gate.is_to_be_refined(fidelity.score, fidelity.doubt, fidelity.agreement)


def is_better(gate: Gate, first: Fidelity, before: Fidelity, after: Fidelity) -> bool:
    """Whether a refined recipe takes the place of one that measured `first`, as a server decides.

    `before` and `after` are both recipes on the probes held out of the refine.
    """
    if refuse(gate, after) is not None:
        return False
    return refuse(gate, first) is not None or (after.score or 0.0) > (before.score or 0.0)
