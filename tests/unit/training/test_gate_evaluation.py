"""The gate is judged by what tasks get: by the recipe, by the refined one, or by the prompt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loragen.method.refine import RefineSpec
from loragen.suite.demo import DEMO
from loragen.suite.identities import SIGNOFF
from loragen.suite.rewrites import START
from loragen.suite.splits import Split
from loragen.training.checkpoint import Layout
from loragen.training.gate_evaluation import GateEvaluator, Outcome, _gate
from loragen.training.resampling import interval

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "demo"


def outcome(first: float | None, second: float | None) -> Outcome:
    """Return a task whose recipe is right once in four, refined twice, with the prompt always."""
    ways = (("recipe", 1), ("refined", 2), ("full_prompt", 4))
    hits = {way: torch.arange(4) < right for way, right in ways}
    return Outcome("any", first, second, hits)


@pytest.mark.parametrize(
    ("first", "second", "way"),
    [
        (0.8, 0.1, "recipe"),
        (0.79, 0.8, "refined"),
        (0.79, 0.79, "full_prompt"),
        (0.1, None, "full_prompt"),
        (None, None, "full_prompt"),
        (None, 0.9, "full_prompt"),
    ],
)
def test_the_gate_serves_as_the_gateway_does(
    first: float | None, second: float | None, way: str
) -> None:
    assert outcome(first, second).served(0.8) == way
    assert outcome(first, second).served(0.0) == "recipe"


def test_what_it_serves_and_how_much_of_it_without_the_prompt() -> None:
    outcomes = [outcome(0.9, 0.9), outcome(0.5, 0.9), outcome(0.5, 0.5), outcome(0.5, 0.5)]
    assert _gate(outcomes, 0.8) == {
        "served": 0.6875,
        "compiled_share": 0.5,
        "one_pass_share": 0.25,
    }


def test_the_shipped_checkpoint_is_measured_refined_and_served() -> None:
    catalogue = replace(DEMO, seen=(SIGNOFF, START))
    spec = RefineSpec(steps=4, lr=0.02, probes_per_step=4, self_probes=12, measure_probes=8)
    figures = GateEvaluator(Layout(CHECKPOINT), catalogue, spec).score(Split.UNSEEN_PROMPTS, 2)
    assert figures["tasks"] == sum(figures["ways"].values()) == 4
    assert figures["full_prompt"] >= 0.8
    assert figures["served"] >= 0.8
    assert figures["by_threshold"]["0.0"]["compiled_share"] == 1.0
    assert set(figures["per_family"]) == {"signoff", "start"}
    low, high = figures["ci95"]["served"]
    assert low <= figures["served"] <= high


def test_an_interval_is_the_same_every_time_and_narrows_with_more_tasks() -> None:
    few, many = torch.tensor([0.0, 1.0] * 10), torch.tensor([0.0, 1.0] * 1_000)
    assert interval(few) == interval(few)
    assert interval(few)[0] < interval(many)[0] < 0.5 < interval(many)[1] < interval(few)[1]
