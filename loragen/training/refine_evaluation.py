"""Refine evaluation: what fitting a task's gates on probes brings, on questions not among them.

    recipe              the generator's recipe, as it is
    refined             gates fitted from that recipe, on the generator's pool
    refined_from_zeros  gates fitted from nothing, on the generator's pool
    bootstrap           gates fitted from nothing, on a pool of the edge model's own weights

Probes are a client's: messages of the task's kind, with the edge model's own answers to them under
the prompt. Fitted gates go through int8 bytes like any recipe.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Any, Final
from zlib import crc32

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from loragen.method.bootstrap import bootstrap_experts
from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.probes import Probe
from loragen.method.refine import BOOTSTRAP_LR, RefineSpec, refine
from loragen.recipe import Level, Recipe
from loragen.suite.family import Turn
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.training.batches import Batch, Renderer, Row
from loragen.training.checkpoint import Layout
from loragen.training.fit import LINEARS
from loragen.training.gate_evaluation import REFINED_AT_ONCE
from loragen.training.passes import exact_matches, prompted_states, recipe_states
from loragen.training.resampling import interval, ratio_interval

logger = logging.getLogger(__name__)

QUESTIONS: Final = 16
MATTERS: Final = 0.2
"""A bootstrap pool is judged on tasks whose prompt makes so much more right, of 1, than none."""
_ALONE: Final = 8
"""Tasks that are refined alone as well, for their time."""
_TRIES: Final = 64
"""Messages drawn for one that is kept, at most."""
_NO_POOL: Final = "0" * 64
"""Pool id of recipes that are only rounded, not stored."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BootstrapSpec:
    """How many of the edge model's own directions gates scale, and how they are fitted."""

    columns: int = 128
    steps: int = 100
    lr: float = BOOTSTRAP_LR


@dataclass(frozen=True, slots=True)
class RefineCase:
    """Prompts of all families of a catalogue with their probes, and other questions to score."""

    prompts: list[Prompt]
    probes: list[list[Probe]]
    batches: list[Batch]
    """Questions of `REFINED_AT_ONCE` prompts each."""

    @classmethod
    def draw(
        cls, catalogue: Catalogue, renderer: Renderer, *, prompts: int, probes: int
    ) -> "RefineCase":
        """Draw unseen prompts, so many per family, with so many probes each."""
        drawn = [
            catalogue.draw(family, Split.UNSEEN_PROMPTS, index)
            for index in range(prompts)
            for family in catalogue.seen
        ]
        rows = [
            Row(prompt.text, tuple((turn,) for turn in _turns(prompt, QUESTIONS, is_held=True)))
            for prompt in drawn
        ]
        asked = [_probes(prompt, renderer, probes) for prompt in drawn]
        batches = [
            renderer.batch(rows[part], [[False] * QUESTIONS] * len(rows[part]))
            for part in _parts(len(rows))
        ]
        return cls(drawn, asked, batches)


class RefineEvaluator:
    """Refines one case and scores the result: the share of right answers of each task [B]."""

    def __init__(self, case: RefineCase, renderer: Renderer) -> None:
        self._case, self._renderer = case, renderer

    @torch.inference_mode()
    def prompted(self, edge: EdgeModel) -> torch.Tensor:
        """Return the scores [B] with the prompt in context."""
        pad = self._renderer.pad_id
        return torch.cat(
            [
                _right(edge, batch, prompted_states(edge.model, batch, pad))
                for batch in self._case.batches
            ]
        )

    @torch.inference_mode()
    def given(self, edge: EdgeModel, gates_BLMR: torch.Tensor | None) -> torch.Tensor:
        """Return the scores [B] under gates as they are, or under none."""
        parts = zip(self._case.batches, _parts(len(self._case.prompts)), strict=True)
        bos = self._renderer.bos_id
        return torch.cat(
            [
                _right(
                    edge,
                    batch,
                    recipe_states(edge, batch, None if gates_BLMR is None else gates_BLMR[at], bos),
                )
                for batch, at in parts
            ]
        )

    def refined(
        self, edge: EdgeModel, start_BLMR: torch.Tensor, spec: RefineSpec
    ) -> tuple[torch.Tensor, Figures]:
        """Return the scores [B] under fitted gates, and the CPU seconds that a task takes."""
        started = time.process_time()
        fitted = [
            refine(edge, self._case.probes[part], start_BLMR[part], spec)
            for part in _parts(len(start_BLMR))
        ]
        together = (time.process_time() - started) / len(start_BLMR)
        alone = [
            self._seconds_alone(edge, start_BLMR, spec, task)
            for task in range(0, len(start_BLMR), -(-len(start_BLMR) // _ALONE))
        ]
        seconds = {
            "cpu_seconds_per_task": round(together, 2),
            "cpu_seconds_alone": [round(each, 2) for each in (min(alone), max(alone))],
        }
        return self.given(edge, rounded(torch.cat(fitted))), seconds

    def _seconds_alone(
        self, edge: EdgeModel, start_BLMR: torch.Tensor, spec: RefineSpec, task: int
    ) -> float:
        started = time.process_time()
        refine(edge, [self._case.probes[task]], start_BLMR[task : task + 1], spec)
        return time.process_time() - started


def evaluate_refine(
    layout: Layout,
    catalogue: Catalogue,
    spec: RefineSpec,
    bootstrap: BootstrapSpec,
    *,
    prompts: int,
    probes: int,
) -> Figures:
    """Return the figures of a checkpoint: its generator's recipes, and refining from each start."""
    renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
    case = RefineCase.draw(catalogue, renderer, prompts=prompts, probes=probes)
    evaluator = RefineEvaluator(case, renderer)
    pool = Pool.load(layout.generator(Level.DENSE) / "pool.safetensors")
    edge = EdgeModel.load(layout.edge, pool)
    edge.model.requires_grad_(False)
    generator = Generator.load(layout.generator(Level.DENSE))
    recipes = stack_gates(
        generator.compile([prompt.text for prompt in case.prompts]), pool.id, pool.spec
    )
    families = [prompt.family.name for prompt in case.prompts]
    full_B, none_B = evaluator.prompted(edge), evaluator.given(edge, None)
    logger.info("full prompt %.1f %%", 100 * full_B.mean().item())
    report: Figures = {
        "tasks": len(families),
        "full_prompt": _figures(full_B, full_B, families),
        "none": _figures(none_B, full_B, families),
        "recipe": _figures(evaluator.given(edge, recipes), full_B, families),
    }
    for name, start in (("refined", recipes), ("refined_from_zeros", torch.zeros_like(recipes))):
        scores_B, seconds = evaluator.refined(edge, start, spec)
        report[name] = {**_figures(scores_B, full_B, families), **seconds}
        logger.info("%s %.1f %%", name, 100 * scores_B.mean().item())
    matters_B = full_B - none_B >= MATTERS
    report["bootstrap"] = _bootstrap(evaluator, layout, spec, bootstrap, full_B, matters_B)
    return report


def rounded(gates_BLMR: torch.Tensor) -> torch.Tensor:
    """Return gates as int8 recipes would hold them."""
    return torch.stack(
        [torch.from_numpy(_recipe(gates_LMR).gates.copy()) for gates_LMR in gates_BLMR]
    )


def _bootstrap(
    evaluator: RefineEvaluator,
    layout: Layout,
    spec: RefineSpec,
    bootstrap: BootstrapSpec,
    full_B: torch.Tensor,
    matters_B: torch.Tensor,
) -> Figures:
    """Refine from zeros on a pool of the edge model's own weights; judge where prompts matter."""
    model = LlamaForCausalLM.from_pretrained(layout.edge, dtype=torch.float32).eval()
    model.requires_grad_(False)
    edge = EdgeModel(model, LINEARS, bootstrap_experts(model, LINEARS, bootstrap.columns))
    layers = model.config.num_hidden_layers
    start = torch.zeros(len(full_B), layers, len(LINEARS), bootstrap.columns)
    fitting = replace(spec, steps=bootstrap.steps, lr=bootstrap.lr)
    scores_B, seconds = evaluator.refined(edge, start, fitting)
    logger.info("bootstrap %.1f %%", 100 * scores_B.mean().item())
    return {
        "columns": bootstrap.columns,
        "steps": bootstrap.steps,
        "rounds": spec.rounds,
        "lr": bootstrap.lr,
        "recipe_bytes": len(_recipe(start[0]).text),
        "tasks": int(matters_B.sum()),
        "full_prompt": round(full_B[matters_B].mean().item(), 4),
        **_figures(scores_B[matters_B], full_B[matters_B]),
        **seconds,
    }


def _figures(scores_B: torch.Tensor, full_B: torch.Tensor, families: Sequence[str] = ()) -> Figures:
    """Return what scores come to, and what share they are of the full prompt's."""
    return {
        "mean": round(scores_B.mean().item(), 4),
        "ci95": interval(scores_B),
        "of_full_prompt": round((scores_B.mean() / full_B.mean()).item(), 4),
        "of_full_prompt_ci95": ratio_interval(scores_B, full_B),
        **({"per_family": _per_family(scores_B, families)} if families else {}),
    }


def _per_family(scores_B: torch.Tensor, families: Sequence[str]) -> dict[str, float]:
    return {
        family: round(scores_B[[name == family for name in families]].mean().item(), 4)
        for family in dict.fromkeys(families)
    }


def _right(edge: EdgeModel, batch: Batch, states: torch.Tensor) -> torch.Tensor:
    """Return the share of a batch's questions that are answered right, for each task [B]."""
    return exact_matches(edge.model, states, batch.targets).float().mean(1)


def _parts(tasks: int) -> list[slice]:
    """Return the tasks that are refined at once."""
    return [slice(at, at + REFINED_AT_ONCE) for at in range(0, tasks, REFINED_AT_ONCE)]


def _recipe(gates_LMR: torch.Tensor) -> Recipe:
    return Recipe.encode(gates_LMR.numpy(), pool_id=_NO_POOL, level=Level.DENSE)


def _probes(prompt: Prompt, renderer: Renderer, count: int) -> list[Probe]:
    """Draw probes whose answers are left to the edge model."""
    questions = [turn.question for turn in _turns(prompt, count, is_held=False)]
    system = {"role": "system", "content": prompt.text}
    chats = [[{"role": "user", "content": question}] for question in questions]
    bare = renderer.encode([renderer.template.render(chat) for chat in chats])
    prompted = renderer.encode([renderer.template.render([system, *chat]) for chat in chats])
    return [Probe(*pair) for pair in zip(prompted, bare, strict=True)]


def _turns(prompt: Prompt, count: int, *, is_held: bool) -> list[Turn]:
    """Draw turns from a quarter of all messages, which is held for scoring, or from the rest.

    Some families know fewer messages than are drawn; no message is ever in both parts.
    """
    rng = Random(f"{prompt.text}/{is_held}")
    turns = (prompt.ask(rng) for _ in range(_TRIES * count))
    kept = (turn for turn in turns if (crc32(turn.question.encode()) % 4 == 0) == is_held)
    return list(islice(kept, count))
