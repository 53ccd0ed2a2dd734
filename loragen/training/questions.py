"""Questions: what evaluations ask the prompts of a family, the same in every run."""

from collections.abc import Sequence
from random import Random
from typing import Final

from loragen.suite.family import Family
from loragen.suite.splits import Prompt, Split
from loragen.training.batches import Batch, Renderer, Row, evaluation_row

QUESTIONS: Final = 4
"""Asked of every prompt."""


def question_batch(
    renderer: Renderer, family: Family, split: Split, prompts: Sequence[Prompt]
) -> Batch:
    """Return the rows of `question_rows` as one batch."""
    rows = question_rows(family, split, prompts)
    return renderer.batch(rows, [[False] * QUESTIONS] * len(rows))


def question_rows(family: Family, split: Split, prompts: Sequence[Prompt]) -> list[Row]:
    """Return prompts, drawn in order from the first on, with their questions."""
    rng = Random(f"questions/{split}/{family.name}")
    return [evaluation_row(prompt, QUESTIONS, rng) for prompt in prompts]
