"""Evaluation: does a recipe do what the prompt would have done, and does nothing else?

Every system answers the same questions and is right only if greedy decoding would give the exact
answer and end. Recipes go through their int8 bytes; all that is read comes from the checkpoint
folder, as in serving.

    full_prompt               edge model with the prompt in context
    none                      edge model without it
    recipe                    edge model under the prompt's recipe
    other_recipe              ... under the recipe of a prompt of another family
    same_family_other_recipe  ... of a prompt of the same family with other values
    mean_recipe               ... under the mean gates over training prompts
    multitask_lora            edge model with one LoRA trained for all prompts
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoTokenizer

from loragen.gate import Gate
from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.refine import RefineSpec
from loragen.recipe import Level, Recipe
from loragen.suite.catalogues import CATALOGUES, CatalogueName
from loragen.suite.family import Family
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.suite.table import row_count
from loragen.training.batches import Batch, Renderer
from loragen.training.checkpoint import Layout
from loragen.training.gate_processes import evaluate_gate
from loragen.training.passes import exact_matches, prompted_states, recipe_states
from loragen.training.questions import QUESTIONS, question_batch
from loragen.training.resampling import interval, ratio_interval

logger = logging.getLogger(__name__)

Figures = dict[str, Any]

SPLITS: Final = (Split.UNSEEN_PROMPTS, Split.UNSEEN_WORDINGS, Split.UNSEEN_FAMILIES)
MEAN_PROMPTS: Final = 16
"""Training prompts per family in the mean recipe."""


@dataclass(frozen=True, slots=True)
class Case:
    """Prompts of one family and split with their questions, ready to score."""

    family: Family
    prompts: list[Prompt]
    batch: Batch


class Evaluator:
    """Scores one generator of a checkpoint against all controls."""

    def __init__(self, layout: Layout, level: Level, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._pool = Pool.load(layout.generator(level) / "pool.safetensors")
        self._edge = EdgeModel.load(layout.edge, self._pool)
        self._generator = Generator.load(layout.generator(level))
        control = Pool.load(layout.multitask)
        self._control = EdgeModel.load(layout.edge, control)
        self._control_gates = torch.ones(
            1, control.spec.layers, len(control.spec.linears), control.spec.columns
        )
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
        self._mean = self._mean_recipe()

    @torch.inference_mode()
    def score(self, split: Split, prompts: int) -> Figures:
        """Return the mean of every system over the families of a split, and each family's."""
        cases = [self._case(family, split, prompts) for family in self._catalogue.families(split)]
        recipes = [
            self._generator.compile([prompt.text for prompt in case.prompts]) for case in cases
        ]
        per_family: dict[str, dict[str, torch.Tensor]] = {}
        for index, case in enumerate(cases):
            others = recipes[(index + 1) % len(cases)]
            per_family[case.family.name] = self._score_case(case, recipes[index], others)
            logger.info("%s %s scored", split, case.family.name)
        systems = next(iter(per_family.values())).keys()
        pooled = {
            system: torch.cat([figures[system] for figures in per_family.values()])
            for system in systems
        }
        rows_B = [row_count(prompt.values) for case in cases for prompt in case.prompts]
        return {
            **{system: _mean(hits) for system, hits in pooled.items()},
            "ci95": {
                system: interval(hits_BQ.float().mean(1)) for system, hits_BQ in pooled.items()
            },
            "prompts": prompts * len(cases),
            "questions": prompts * len(cases) * QUESTIONS,
            "per_family": {
                name: {system: _mean(hits) for system, hits in figures.items()}
                for name, figures in per_family.items()
            },
            "tables": _part([rows > 0 for rows in rows_B], pooled),
            "others": _part([rows == 0 for rows in rows_B], pooled),
            "tables_by_rows": {
                str(rows): _part([each == rows for each in rows_B], pooled)
                for rows in sorted(set(rows_B) - {0})
            },
        }

    def _case(self, family: Family, split: Split, prompts: int) -> Case:
        drawn = [self._catalogue.draw(family, split, index) for index in range(prompts)]
        return Case(family, drawn, question_batch(self._renderer, family, split, drawn))

    def _score_case(
        self, case: Case, own: Sequence[Recipe], other_family: Sequence[Recipe]
    ) -> dict[str, torch.Tensor]:
        count = len(case.prompts)
        same_family = [own[_with_other_values(case.prompts, index)] for index in range(count)]
        batch, pad_id = case.batch, self._renderer.pad_id
        prompted = prompted_states(self._edge.model, batch, pad_id)
        return {
            "full_prompt": exact_matches(self._edge.model, prompted, batch.targets),
            "none": self._hits(batch, [None] * count),
            "recipe": self._hits(batch, own),
            "other_recipe": self._hits(batch, other_family),
            "same_family_other_recipe": self._hits(batch, same_family),
            "mean_recipe": self._hits(batch, [self._mean] * count),
            "multitask_lora": self._gated_hits(
                self._control, batch, self._control_gates.expand(count, -1, -1, -1)
            ),
        }

    def _hits(self, batch: Batch, recipes: Sequence[Recipe | None]) -> torch.Tensor:
        gates = stack_gates(recipes, self._pool.id, self._pool.spec)
        return self._gated_hits(self._edge, batch, gates)

    def _gated_hits(self, edge: EdgeModel, batch: Batch, gates: torch.Tensor) -> torch.Tensor:
        states = recipe_states(edge, batch, gates, self._renderer.bos_id)
        return exact_matches(edge.model, states, batch.targets)

    def _mean_recipe(self) -> Recipe:
        texts = [
            self._catalogue.draw(family, Split.TRAIN, index).text
            for family in self._catalogue.seen
            for index in range(MEAN_PROMPTS)
        ]
        gates = np.mean([recipe.gates for recipe in self._generator.compile(texts)], axis=0)
        head = self._generator.head
        return Recipe.encode(gates, pool_id=head.pool_id, level=head.level)


def evaluate(
    root: Path, name: CatalogueName, tasks: int, gated: int, gate: Gate, *, processes: int
) -> Figures:
    """Return the figures of each generator on all splits, at least so many tasks on each.

    A checkpoint may have no generator of level 0. Refining, and what the gate serves, are those of
    the shipped one on `gated` tasks under a gate, by so many processes; 0 leaves both out.
    """
    layout, catalogue = Layout(root), CATALOGUES[name]
    figures: Figures = {"catalogue": catalogue.name}
    for key, level in (("shipped", Level.DENSE), ("L0", Level.PAPER)):
        if not layout.generator(level).exists():
            continue
        evaluator = Evaluator(layout, level, catalogue)
        figures[key] = {
            str(split): evaluator.score(split, catalogue.prompts_per_family(split, tasks))
            for split in SPLITS
        }
    if not gated:
        return figures
    figures["gate"] = evaluate_gate(
        root, name, SPLITS, gated, gate, spec=RefineSpec(), processes=processes
    )
    for split, row in figures["gate"].items():
        figures["shipped"][split]["refined"] = row["refined"]
    return figures


def _with_other_values(prompts: Sequence[Prompt], index: int) -> int:
    """Return the next prompt, cyclically, that has other values than prompt `index`."""
    count = len(prompts)
    for step in range(1, count):
        other = (index + step) % count
        if prompts[other].values != prompts[index].values:
            return other
    raise ValueError("all prompts of the family have the same values")


def _part(is_in_B: Sequence[bool], pooled: dict[str, torch.Tensor]) -> Figures | None:
    """Return what every system reaches on some of the prompts; None if there are none.

    `recipe_of_full_prompt` is the share of the full prompt's accuracy that the recipe has.
    """
    if not any(is_in_B):
        return None
    hits = {system: hits_BQ[torch.tensor(is_in_B)] for system, hits_BQ in pooled.items()}
    recipe_B, full_B = (hits[system].float().mean(1) for system in ("recipe", "full_prompt"))
    return {
        **{system: _mean(hits_BQ) for system, hits_BQ in hits.items()},
        "recipe_of_full_prompt": round((recipe_B.mean() / full_B.mean()).item(), 4),
        "recipe_of_full_prompt_ci95": ratio_interval(recipe_B, full_B),
        "prompts": sum(is_in_B),
    }


def _mean(hits_BQ: torch.Tensor) -> float:
    return round(hits_BQ.float().mean().item(), 4)
