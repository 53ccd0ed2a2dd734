"""Gate evaluation: what a task gets that is measured, refined and held against the gate.

It does with unseen prompts what the router service and the gateway do: measures each recipe on
self-generated probes, refines the task on others, and serves it by the recipe, by the refined one
or by the prompt. The suite's questions, which no probe was drawn from, then tell what that was
worth.

    full_prompt, recipe   as in `evaluation`, on the same questions
    refined               edge model under the refined recipe, whatever it measured
    served                under what the gate chose
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import torch
from transformers import AutoTokenizer

from loragen.errors import InvalidRequest
from loragen.gate import Gate
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
from loragen.training.gated import is_better, is_to_be_refined, refuse
from loragen.training.passes import exact_matches, prompted_states, recipe_states
from loragen.training.questions import question_batch
from loragen.training.resampling import interval

logger = logging.getLogger(__name__)

THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
DOUBTS: Final = (0.01, 0.02, 0.04, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2)
AGREEMENTS: Final = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
REFINES_BELOW: Final = (0.0, 0.8, 0.85, 0.9, 0.95, 1.0)
REFINES_FROM: Final = (0.05, 0.3, 0.5, 0.6, 0.7, 0.8)
TRUSTS_FROM: Final = (0.8, 0.85, 0.9, 0.95, 1.0)
REFINED_AT_ONCE: Final = 32

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task: what its recipes are worth, and which of its questions each way answers right.

    `first` is the fidelity of the recipe; `second` that of the recipe and of the refined one on the
    probes held out of the refine. They are None where too few messages could be made up. `hits`: a
    row [Q] per way.
    """

    family: str
    first: Fidelity | None
    second: tuple[Fidelity, Fidelity] | None
    hits: dict[str, torch.Tensor]

    @property
    def is_measurable(self) -> bool:
        """Whether there is a fidelity: enough messages, and the prompt has an effect on them."""
        return self.first is not None and self.first.score is not None

    def served(self, gate: Gate) -> str:
        """Return the way that a gate serves the task."""
        if gate.min_fidelity <= 0:
            return "recipe"
        if self.first is None:
            return "full_prompt"
        as_made = "recipe" if refuse(gate, self.first) is None else "full_prompt"
        if self.second is None or not is_to_be_refined(gate, self.first):
            return as_made
        return "refined" if is_better(gate, self.first, *self.second) else as_made

    def row(self, gate: Gate) -> Figures:
        """Return what other gates can be tried on: fidelities, and right answers of each way."""
        return {
            "family": self.family,
            "served": self.served(gate),
            "first": _worth(self.first),
            "before": _worth(self.second and self.second[0]),
            "after": _worth(self.second and self.second[1]),
            "right": {way: int(hits.sum()) for way, hits in self.hits.items()},
        }


def _worth(found: Fidelity | None) -> list[float | None] | None:
    """Return fidelity, doubt and agreement, rounded."""
    if found is None:
        return None
    figures = (found.score, found.doubt, found.agreement)
    return [None if figure is None else round(figure, 4) for figure in figures]


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

    def __init__(self, layout: Layout, catalogue: Catalogue, spec: RefineSpec, gate: Gate) -> None:
        folder = layout.generator(Level.DENSE)
        self._gate = gate
        self._catalogue = catalogue
        self._generator = Generator.load(folder)
        self._pool = Pool.load(folder / "pool.safetensors")
        self._refiner = load_refiner(layout, spec)
        self._edge = EdgeModel.load(layout.edge, self._pool)
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
        self._seconds: dict[str, float] = defaultdict(float)

    def score(self, split: Split, prompts: int) -> Figures:
        """Return what tasks of a split get, so many prompts of each family."""
        self._seconds.clear()
        outcomes: list[Outcome] = []
        for family in self._catalogue.families(split):
            outcomes += self._score_family(family, split, prompts)
            logger.info("%s %s gated", split, family.name)
        gate = self._gate
        return {
            **_accuracies(outcomes, gate),
            "tasks": len(outcomes),
            "min_fidelity": gate.min_fidelity,
            "max_doubt": gate.max_doubt,
            "min_agreement": gate.min_agreement,
            "refine_below_agreement": gate.refine_below_agreement,
            "refine_from_fidelity": gate.refine_from_fidelity,
            "trust_from_fidelity": gate.trust_from_fidelity,
            "compiled_share_ci95": interval(
                torch.tensor([each.served(gate) != "full_prompt" for each in outcomes]).float()
            ),
            "ways": dict(Counter(outcome.served(gate) for outcome in outcomes)),
            "not_measurable": sum(not outcome.is_measurable for outcome in outcomes),
            "by_threshold": {
                str(bar): _gate(outcomes, replace(gate, min_fidelity=bar)) for bar in THRESHOLDS
            },
            "by_doubt": {
                str(bar): _gate(outcomes, replace(gate, max_doubt=bar)) for bar in (*DOUBTS, None)
            },
            "by_agreement": {
                str(bar): _gate(outcomes, replace(gate, min_agreement=bar)) for bar in AGREEMENTS
            },
            "by_refine_below": {
                str(bar): _gate(outcomes, replace(gate, refine_below_agreement=bar))
                for bar in REFINES_BELOW
            },
            "by_refine_from": {
                str(bar): _gate(outcomes, replace(gate, refine_from_fidelity=bar))
                for bar in REFINES_FROM
            },
            "by_trust_from": {
                str(bar): _gate(outcomes, replace(gate, trust_from_fidelity=bar))
                for bar in (*TRUSTS_FROM, None)
            },
            "measure_seconds_per_task": round(self._seconds["measure"] / len(outcomes), 2),
            "refine_seconds_per_task": round(self._seconds["refine"] / len(outcomes), 2),
            "per_family": {
                family: _family_row([each for each in outcomes if each.family == family], gate)
                for family in dict.fromkeys(outcome.family for outcome in outcomes)
            },
            "outcomes": [outcome.row(gate) for outcome in outcomes],
        }

    def _score_family(self, family: Family, split: Split, count: int) -> list[Outcome]:
        drawn = [self._catalogue.draw(family, split, index) for index in range(count)]
        recipes = self._generator.compile([prompt.text for prompt in drawn])
        first = [self._measure(*pair) for pair in zip(drawn, recipes, strict=True)]
        refined, second = self._refine(drawn, recipes)
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
                {way: hits_BQ[row] for way, hits_BQ in hits.items()},
            )
            for row in range(count)
        ]

    def _measure(self, prompt: Prompt, recipe: Recipe) -> Fidelity | None:
        started = time.process_time()
        try:
            return self._refiner.measure(prompt.text, None, recipe).fidelity
        except InvalidRequest:  # too few different messages
            return None
        finally:
            self._seconds["measure"] += time.process_time() - started

    def _refine(
        self, prompts: Sequence[Prompt], recipes: Sequence[Recipe]
    ) -> tuple[list[Recipe], list[tuple[Fidelity, Fidelity] | None]]:
        """Return the refined recipes, and both fidelities; as they were without probes."""
        started = time.process_time()
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
        self._seconds["refine"] += time.process_time() - started
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


def _hits(outcomes: Sequence[Outcome], gate: Gate) -> dict[str, torch.Tensor]:
    """Return which questions are right [B, Q], per way and as the gate serves."""
    ways = {
        way: torch.stack([outcome.hits[way] for outcome in outcomes])
        for way in ("full_prompt", "recipe", "refined")
    }
    served = torch.stack([outcome.hits[outcome.served(gate)] for outcome in outcomes])
    return {**ways, "served": served}


def _shares(ways: dict[str, torch.Tensor]) -> Figures:
    return {way: round(hits.float().mean().item(), 4) for way, hits in ways.items()}


def _family_row(outcomes: Sequence[Outcome], gate: Gate) -> Figures:
    """Return what one family gets, and how unsure the edge model is of it."""
    doubts = [each.first.doubt for each in outcomes if each.first and each.first.doubt is not None]
    return {
        **_shares(_hits(outcomes, gate)),
        "compiled_share": _gate(outcomes, gate)["compiled_share"],
        "median_doubt": round(median(doubts), 4) if doubts else None,
    }


def _accuracies(outcomes: Sequence[Outcome], gate: Gate) -> Figures:
    """Return the share of right answers per way and as served, with bootstrap intervals."""
    ways = _hits(outcomes, gate)
    served = ways["served"]
    return {
        **_shares(ways),
        "ci95": {way: interval(hits.float().mean(1)) for way, hits in ways.items()},
        "served_minus_full_prompt_ci95": interval(
            served.float().mean(1) - ways["full_prompt"].float().mean(1)
        ),
    }


def _gate(outcomes: Sequence[Outcome], gate: Gate) -> dict[str, float]:
    """Return what a gate serves: accuracy, and the share without the prompt."""
    ways = [outcome.served(gate) for outcome in outcomes]
    hits = torch.stack([each.hits[way] for each, way in zip(outcomes, ways, strict=True)])
    return {
        "served": round(hits.float().mean().item(), 4),
        "compiled_share": round(1 - ways.count("full_prompt") / len(ways), 4),
        "one_pass_share": round(ways.count("recipe") / len(ways), 4),
    }
