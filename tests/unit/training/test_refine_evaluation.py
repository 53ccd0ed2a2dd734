"""Refining is measured against the prompt and the recipe, on questions that are no probes."""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer

from loragen.method.refine import RefineSpec
from loragen.suite.identities import PERSONA, SIGNOFF
from loragen.suite.rewrites import START
from loragen.suite.small import SMALL
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout
from loragen.training.refine_evaluation import (
    BootstrapSpec,
    RefineCase,
    evaluate_refine,
    rounded,
)

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "small"


def test_refining_from_the_recipe_keeps_what_it_could() -> None:
    catalogue = replace(SMALL, seen=(SIGNOFF, START))
    spec = RefineSpec(steps=4, lr=0.02, probes_per_step=4)
    figures = evaluate_refine(
        Layout(CHECKPOINT), catalogue, spec, BootstrapSpec(8, steps=2), prompts=1, probes=4
    )
    assert set(figures["recipe"]["per_family"]) == {"signoff", "start"}
    assert figures["full_prompt"]["mean"] >= 0.8
    assert figures["full_prompt"]["of_full_prompt"] == 1.0
    assert figures["none"]["mean"] <= 0.1
    assert figures["refined"]["mean"] >= figures["recipe"]["mean"] - 0.1
    assert figures["bootstrap"]["tasks"] == 2
    for system in ("refined", "refined_from_zeros", "bootstrap"):
        assert figures[system]["cpu_seconds_per_task"] > 0


def test_no_probe_is_asked_again_for_the_score() -> None:
    renderer = Renderer(AutoTokenizer.from_pretrained(Layout(CHECKPOINT).edge))
    catalogue = replace(SMALL, seen=(SIGNOFF, PERSONA))
    case = RefineCase.draw(catalogue, renderer, prompts=1, probes=24)
    for probes, segments in zip(case.probes, case.batches[0].segments.tolist(), strict=True):
        bare = [list(probe.bare)[1:] for probe in probes]  # segments have no <s>
        assert not any(segment[: len(ids)] == ids for segment in segments for ids in bare)


def test_rounding_moves_gates_by_less_than_a_step() -> None:
    gates = torch.randn(2, 4, 3, 8)
    steps = gates.abs().amax(-1, keepdim=True) / 127
    assert ((rounded(gates) - gates).abs() <= steps).all()
