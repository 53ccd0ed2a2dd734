"""Gate figures: what measured and refined tasks get under a gate, and under others beside it.

full_prompt, recipe   as in `evaluation`, on the same questions
refined               edge model under the refined recipe, whatever it measured
served                under what the gate chose
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any, Final

import torch

from loragen.gate import Gate
from loragen.method.fidelity import Fidelity
from loragen.training.gated import is_better, is_to_be_refined, refuse
from loragen.training.resampling import interval

THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
DOUBTS: Final = (0.01, 0.02, 0.04, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2)
AGREEMENTS: Final = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
REFINES_BELOW: Final = (0.0, 0.8, 0.85, 0.9, 0.95, 1.0)
REFINES_FROM: Final = (0.05, 0.3, 0.5, 0.6, 0.7, 0.8)
TRUSTS_FROM: Final = (0.8, 0.85, 0.9, 0.95, 1.0)

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task: what its recipes are worth, and which of its questions each way answers right.

    `first` is the fidelity of the recipe; `second` that of the recipe and of the refined one on the
    probes held out of the refine. They are None where too few messages could be made up. `hits`: a
    row [Q] per way. `seconds` of a core, on average of the family, to `measure` and to `refine`.
    """

    family: str
    first: Fidelity | None
    second: tuple[Fidelity, Fidelity] | None
    hits: Mapping[str, Sequence[bool]]
    seconds: Mapping[str, float]

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
            "right": {way: sum(hits) for way, hits in self.hits.items()},
        }


def _worth(found: Fidelity | None) -> list[float | None] | None:
    """Return fidelity, doubt and agreement, rounded."""
    if found is None:
        return None
    figures = (found.score, found.doubt, found.agreement)
    return [None if figure is None else round(figure, 4) for figure in figures]


def gate_figures(outcomes: Sequence[Outcome], gate: Gate) -> Figures:
    """Return what these tasks get under a gate, and what others would give in its place."""
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
        "measure_seconds_per_task": _mean_seconds(outcomes, "measure"),
        "refine_seconds_per_task": _mean_seconds(outcomes, "refine"),
        "per_family": {
            family: _family_row([each for each in outcomes if each.family == family], gate)
            for family in dict.fromkeys(outcome.family for outcome in outcomes)
        },
        "outcomes": [outcome.row(gate) for outcome in outcomes],
    }


def _hits(outcomes: Sequence[Outcome], gate: Gate) -> dict[str, torch.Tensor]:
    """Return which questions are right [B, Q], per way and as the gate serves."""
    ways = {
        way: torch.tensor([outcome.hits[way] for outcome in outcomes])
        for way in ("full_prompt", "recipe", "refined")
    }
    served = torch.tensor([outcome.hits[outcome.served(gate)] for outcome in outcomes])
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
    hits = torch.tensor([each.hits[way] for each, way in zip(outcomes, ways, strict=True)])
    return {
        "served": round(hits.float().mean().item(), 4),
        "compiled_share": round(1 - ways.count("full_prompt") / len(ways), 4),
        "one_pass_share": round(ways.count("recipe") / len(ways), 4),
    }


def _mean_seconds(outcomes: Sequence[Outcome], work: str) -> float:
    return round(fmean(each.seconds[work] for each in outcomes), 2)
