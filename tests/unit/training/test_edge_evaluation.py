"""An edge model is scored per family, and tables by their rows."""

from pathlib import Path

import pytest

from loragen.suite.small import SMALL
from loragen.suite.splits import Catalogue, Split
from loragen.suite.tenants import LOOKUPS, TENANTS
from loragen.training.edge_evaluation import EdgeEvaluator

EDGE = Path(__file__).parents[3] / "checkpoints" / "small" / "edge"


@pytest.fixture
def tables() -> Catalogue:
    return Catalogue("tables", LOOKUPS[:2], (), TENANTS.surround, (), ())


def test_the_shipped_edge_follows_prompts_in_context_only() -> None:
    figures = EdgeEvaluator(EDGE, SMALL).score(Split.UNSEEN_PROMPTS, prompts=4)
    assert set(figures["per_family"]) == {family.name for family in SMALL.seen}
    assert figures["full_prompt"] >= 0.85
    assert figures["none"] <= 0.15
    assert figures["tables_by_rows"] == {}


def test_tables_are_scored_by_their_rows(tables: Catalogue) -> None:
    figures = EdgeEvaluator(EDGE, tables).score(Split.UNSEEN_PROMPTS, prompts=8, short=True)
    assert set(figures["tables_by_rows"]) <= {2, 3, 4, 5, 6}
    assert len(figures["tables_by_rows"]) >= 2
