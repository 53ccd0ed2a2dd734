"""The gate is judged by what tasks get: by the recipe, by the refined one, or by the prompt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from config.edge_model import EdgeModelSettings
from loragen.gate import Gate
from loragen.method.fidelity import Fidelity
from loragen.method.refine import RefineSpec
from loragen.suite.catalogues import CatalogueName
from loragen.suite.identities import SIGNOFF
from loragen.suite.rewrites import START
from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from loragen.training.checkpoint import Layout
from loragen.training.gate_evaluation import GateEvaluator
from loragen.training.gate_figures import Outcome, _gate, gate_figures
from loragen.training.gate_processes import evaluate_gate
from loragen.training.gated import DEMO_GATE, SMALL_GATE
from loragen.training.resampling import interval

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "checkpoints" / "small"
GATE = Gate(0.8, max_doubt=0.1)


def outcome(
    first: float | None,
    second: float | None,
    *,
    doubt: float = 0.0,
    agreements: tuple[float, float] = (1.0, 1.0),
    before: float = 0.0,
) -> Outcome:
    """Return a task whose recipe is right once in four, refined twice, with the prompt always."""
    ways = (("recipe", 1), ("refined", 2), ("full_prompt", 4))
    hits = {way: [question < right for question in range(4)] for way, right in ways}
    return Outcome(
        "any",
        Fidelity(first, agreements[0], doubt=doubt),
        (Fidelity(before, 1.0), Fidelity(second, agreements[1], doubt=doubt)),
        hits,
        {"measure": 0.5, "refine": 4.0},
    )


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
    assert outcome(first, second).served(GATE) == way
    assert outcome(first, second).served(Gate(0.0)) == "recipe"
    assert outcome(first, second, doubt=0.2).served(GATE) == "full_prompt"
    assert outcome(first, second, doubt=0.2).served(Gate(0.8)) == way


def test_a_recipe_of_no_use_is_not_refined_by_itself() -> None:
    assert outcome(0.1, 0.9).served(GATE) == "refined"
    assert outcome(0.0, 0.9).served(GATE) == "full_prompt"
    assert outcome(0.5, 0.9).served(replace(GATE, refine_from_fidelity=0.6)) == "full_prompt"


@pytest.mark.parametrize(
    ("first", "second", "before", "way"),
    [
        (0.95, 1.0, 0.5, "recipe"),  # good enough
        (0.85, 1.0, 0.5, "refined"),
        (0.85, 0.7, 0.5, "recipe"),  # refined, it does not pass
        (0.85, 1.0, 0.95, "recipe"),  # it passes, and is no better
        (0.7, 1.0, 0.95, "refined"),  # the first does not pass
        (0.7, 0.7, 0.5, "full_prompt"),
    ],
)
def test_one_that_serves_is_refined_where_it_agrees_too_seldom(
    first: float, second: float, before: float, way: str
) -> None:
    gate = replace(GATE, min_agreement=0.75, refine_below_agreement=0.9)
    task = outcome(0.9, 0.9, agreements=(first, second), before=before)
    assert task.served(gate) == way


def test_what_cannot_be_measured_keeps_its_prompt() -> None:
    (hits,) = [outcome(1.0, 1.0).hits]
    assert Outcome("any", None, None, hits, {}).served(GATE) == "full_prompt"
    assert not Outcome("any", None, None, hits, {}).is_measurable
    assert not outcome(None, None).is_measurable


@pytest.mark.parametrize(
    ("config", "gate"),
    [
        ("config/small.yaml", SMALL_GATE),
        ("config/demo.yaml", DEMO_GATE),
        ("config/several-models.yaml", DEMO_GATE),
        ("k8s/overlays/cpu-dev/loragen.yaml", DEMO_GATE),
    ],
)
def test_checkpoints_are_evaluated_by_the_gates_they_are_served_with(
    config: str, gate: Gate
) -> None:
    assert first_model(config).bars == gate


@pytest.mark.parametrize(
    "config", ["config/several-models.yaml", "k8s/overlays/cpu-dev/loragen.yaml"]
)
def test_the_demos_model_is_served_alike_wherever_it_is(config: str) -> None:
    place = {
        "model",
        "generator",
        "port",
        "worker_service",
        "kv_cache_gib",
        "drain_timeout_seconds",
    }
    models = (first_model(path).model_dump(exclude=place) for path in (config, "config/demo.yaml"))
    assert next(models) == next(models)


def first_model(config: str) -> EdgeModelSettings:
    """Return the first edge model of a configuration file."""
    return EdgeModelSettings(**yaml.safe_load((ROOT / config).read_text("utf-8"))["edge_models"][0])


def test_what_it_serves_and_how_much_of_it_without_the_prompt() -> None:
    outcomes = [outcome(0.9, 0.9), outcome(0.5, 0.9), outcome(0.5, 0.5), outcome(0.5, 0.5)]
    assert _gate(outcomes, GATE) == {
        "served": 0.6875,
        "compiled_share": 0.5,
        "one_pass_share": 0.25,
    }


BRIEF = RefineSpec(steps=4, lr=0.02, probes_per_step=4, self_probes=12, measure_probes=24)


def test_the_shipped_checkpoint_is_measured_refined_and_served() -> None:
    evaluator = GateEvaluator(Layout(CHECKPOINT), SMALL, BRIEF)
    outcomes = [
        outcome
        for family in (SIGNOFF, START)
        for outcome in evaluator.outcomes(family, Split.UNSEEN_PROMPTS, 2)
    ]
    figures = gate_figures(outcomes, SMALL_GATE)
    assert figures["tasks"] == sum(figures["ways"].values()) == 4
    assert figures["full_prompt"] >= 0.8
    assert figures["served"] >= 0.8
    assert figures["by_threshold"]["0.0"]["compiled_share"] == 1.0
    assert set(figures["per_family"]) == {"signoff", "start"}
    assert set(figures["by_doubt"]) >= {"None", str(SMALL_GATE.max_doubt)}
    assert all(0 <= row["median_doubt"] < 0.1 for row in figures["per_family"].values())
    low, high = figures["ci95"]["served"]
    assert low <= figures["served"] <= high


def test_processes_share_the_families_of_a_split_out() -> None:
    splits = (Split.UNSEEN_FAMILIES,)
    figures = evaluate_gate(
        CHECKPOINT, CatalogueName.SMALL, splits, 2, SMALL_GATE, spec=BRIEF, processes=2
    )
    families = SMALL.families(*splits)
    assert list(figures) == list(map(str, splits))
    assert list(figures[splits[0]]["per_family"]) == [family.name for family in families]
    assert figures[splits[0]]["tasks"] == sum(figures[splits[0]]["ways"].values())


def test_an_interval_is_the_same_every_time_and_narrows_with_more_tasks() -> None:
    few, many = torch.tensor([0.0, 1.0] * 10), torch.tensor([0.0, 1.0] * 1_000)
    assert interval(few) == interval(few)
    assert interval(few)[0] < interval(many)[0] < 0.5 < interval(many)[1] < interval(few)[1]
