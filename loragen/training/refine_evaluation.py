"""Refine evaluation: what fitting a task's gates on probes brings, on questions not among them.

    zeros      gates fitted from nothing, on the generator's pool
    recipe     ... from the generator's recipe
    bootstrap  ... from nothing, on a pool made of the edge model's own weights

Fitted gates go through int8 bytes like any recipe.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from loragen.method.bootstrap import bootstrap_experts
from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.probes import Probe
from loragen.method.refine import RefineSpec, refine
from loragen.recipe import Level, Recipe
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.training.batches import Batch, Renderer, evaluation_row
from loragen.training.checkpoint import Layout
from loragen.training.fit import LINEARS
from loragen.training.passes import exact_matches, prompted_states, recipe_states

logger = logging.getLogger(__name__)

QUESTIONS: Final = 16
_NO_POOL: Final = "0" * 64
"""Pool id of recipes that are only rounded, not stored."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RefineCase:
    """Prompts of all families of a catalogue with their probes, and other questions to score."""

    catalogue: Catalogue
    prompts: list[Prompt]
    probes: list[list[Probe]]
    batch: Batch

    @classmethod
    def draw(
        cls, catalogue: Catalogue, renderer: Renderer, *, prompts: int, probes: int
    ) -> "RefineCase":
        """Draw unseen prompts, so many per family, with so many probes each."""
        drawn = [
            catalogue.draw(family, Split.UNSEEN_PROMPTS, index)
            for family in catalogue.seen
            for index in range(prompts)
        ]
        rows = [
            evaluation_row(prompt, QUESTIONS, Random(f"questions/{index}"))
            for index, prompt in enumerate(drawn)
        ]
        batch = renderer.batch(rows, [[False] * QUESTIONS] * len(rows))
        asked = [_probes(prompt, renderer, probes, index) for index, prompt in enumerate(drawn)]
        return cls(catalogue, drawn, asked, batch)


class RefineEvaluator:
    """Refines one case on one edge model and scores the result."""

    def __init__(self, case: RefineCase, renderer: Renderer, spec: RefineSpec) -> None:
        self._case, self._renderer, self._spec = case, renderer, spec

    def prompted(self, edge: EdgeModel) -> Figures:
        """Score the edge model with the prompt in context, and without."""
        return {
            "full_prompt": self._score(edge, None, with_prompt=True),
            "none": self._score(edge, None),
        }

    def given(self, edge: EdgeModel, gates_BLMR: torch.Tensor) -> Figures:
        """Score gates as they are."""
        return self._score(edge, gates_BLMR)

    def refined(self, edge: EdgeModel, start_BLMR: torch.Tensor) -> Figures:
        """Fit gates, score them, and add the seconds that one task takes."""
        started = time.process_time()
        gates_BLMR = refine(edge, self._case.probes, start_BLMR, self._spec)
        seconds = (time.process_time() - started) / len(self._case.probes)
        return {**self._score(edge, rounded(gates_BLMR)), "seconds_per_task": round(seconds, 2)}

    @torch.inference_mode()
    def _score(
        self, edge: EdgeModel, gates_BLMR: torch.Tensor | None, *, with_prompt: bool = False
    ) -> Figures:
        batch = self._case.batch
        states = (
            prompted_states(edge.model, batch, self._renderer.pad_id)
            if with_prompt
            else recipe_states(edge, batch, gates_BLMR, self._renderer.bos_id)
        )
        hits_BQ = exact_matches(edge.model, states, batch.targets).float()
        families = [prompt.family.name for prompt in self._case.prompts]
        return {
            "mean": round(hits_BQ.mean().item(), 4),
            "per_family": {
                family: round(hits_BQ[[name == family for name in families]].mean().item(), 4)
                for family in dict.fromkeys(families)
            },
        }


def evaluate_refine(
    layout: Layout, catalogue: Catalogue, spec: RefineSpec, *, prompts: int, probes: int
) -> Figures:
    """Return the figures of a checkpoint: its generator's recipes, and refining from each start."""
    renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
    case = RefineCase.draw(catalogue, renderer, prompts=prompts, probes=probes)
    evaluator = RefineEvaluator(case, renderer, spec)
    pool = Pool.load(layout.generator(Level.DENSE) / "pool.safetensors")
    edge = EdgeModel.load(layout.edge, pool)
    edge.model.requires_grad_(False)
    generator = Generator.load(layout.generator(Level.DENSE))
    recipes = stack_gates(
        generator.compile([prompt.text for prompt in case.prompts]), pool.id, pool.spec
    )
    return {
        **evaluator.prompted(edge),
        "recipe": evaluator.given(edge, recipes),
        "refined": evaluator.refined(edge, recipes),
        "refined_from_zeros": evaluator.refined(edge, torch.zeros_like(recipes)),
        "refined_bootstrap": refine_bootstrap(evaluator, layout, len(case.prompts)),
    }


def refine_bootstrap(
    evaluator: RefineEvaluator,
    layout: Layout,
    tasks: int,
    *,
    linears: Sequence[str] = LINEARS,
    columns: int = 64,
) -> Figures:
    """Refine from zeros on a pool made of the edge model's own weights."""
    model = LlamaForCausalLM.from_pretrained(layout.edge, dtype=torch.float32).eval()
    model.requires_grad_(False)
    edge = EdgeModel(model, linears, bootstrap_experts(model, linears, columns))
    start = torch.zeros(tasks, model.config.num_hidden_layers, len(linears), columns)
    return evaluator.refined(edge, start)


def rounded(gates_BLMR: torch.Tensor) -> torch.Tensor:
    """Return gates as int8 recipes would hold them."""
    recipes = [
        Recipe.encode(gates.numpy(), pool_id=_NO_POOL, level=Level.DENSE) for gates in gates_BLMR
    ]
    return torch.stack([torch.from_numpy(recipe.gates.copy()) for recipe in recipes])


def _probes(prompt: Prompt, renderer: Renderer, count: int, seed: int) -> list[Probe]:
    """Draw probes whose answers are left to the edge model."""
    questions = [prompt.ask(Random(f"probe/{seed}/{number}")).question for number in range(count)]
    system = {"role": "system", "content": prompt.text}
    chats = [[{"role": "user", "content": question}] for question in questions]
    bare = renderer.encode([renderer.template.render(chat) for chat in chats])
    prompted = renderer.encode([renderer.template.render([system, *chat]) for chat in chats])
    return [Probe(*pair) for pair in zip(prompted, bare, strict=True)]
