"""Edge evaluation: how often an edge model answers right with the prompt in context, and without.

What it cannot do in context no recipe can carry, so a generator is worth training only after this.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from loragen.suite.family import Family
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.suite.table import row_count
from loragen.training.batches import Batch, Renderer, Row
from loragen.training.passes import exact_matches, prompted_states
from loragen.training.questions import QUESTIONS, question_rows

_AT_ONCE: Final = 32
"""Prompts of one batch."""

Figures = dict[str, Any]


class EdgeEvaluator:
    """Scores the edge model of a folder on a catalogue."""

    def __init__(self, edge: Path, catalogue: Catalogue) -> None:
        self._model = LlamaForCausalLM.from_pretrained(edge, dtype=torch.float32).eval()
        self._renderer = Renderer(AutoTokenizer.from_pretrained(edge))
        self._catalogue = catalogue

    def score(self, split: Split, prompts: int, *, short: bool = False) -> Figures:
        """Return the share of right answers per family, and of tables by their rows.

        `short` asks with the rule alone as the prompt, without the sentences around it.
        """
        families: dict[str, dict[str, float]] = {}
        by_rows: dict[int, list[float]] = defaultdict(list)
        for family in self._catalogue.families(split):
            drawn = [self._catalogue.draw(family, split, index) for index in range(prompts)]
            rows = _rows(family, split, drawn, short=short)
            hits_BQ = self._hits(rows, bare=False)
            families[family.name] = {
                "full_prompt": _mean(hits_BQ),
                "none": _mean(self._hits(rows, bare=True)),
            }
            for prompt, hits_Q in zip(drawn, hits_BQ, strict=True):
                if rows_of_table := row_count(prompt.values):
                    by_rows[rows_of_table].append(_mean(hits_Q))
        return {
            "full_prompt": _average([row["full_prompt"] for row in families.values()]),
            "none": _average([row["none"] for row in families.values()]),
            "per_family": families,
            "tables_by_rows": {rows: _average(hits) for rows, hits in sorted(by_rows.items())},
        }

    @torch.inference_mode()
    def _hits(self, rows: list[Row], *, bare: bool) -> torch.Tensor:
        """Return, per row and question, whether the prompted answer is what the model says."""
        hits = []
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            asked = self._renderer.batch(some, [[False] * QUESTIONS] * len(some))
            batch = Batch(
                asked.prompts, asked.segments, asked.targets, torch.full_like(asked.bare, bare)
            )
            states = prompted_states(self._model, batch, self._renderer.pad_id)
            hits.append(exact_matches(self._model, states, batch.targets))
        return torch.cat(hits)


def _rows(family: Family, split: Split, prompts: list[Prompt], *, short: bool) -> list[Row]:
    rows = question_rows(family, split, prompts)
    if not short:
        return rows
    return [Row(prompt.rule, row.segments) for prompt, row in zip(prompts, rows, strict=True)]


def _mean(hits: torch.Tensor) -> float:
    return round(hits.float().mean().item(), 4)


def _average(values: list[float]) -> float:
    return round(sum(values) / len(values), 4)
