"""Gate evaluation of whole splits, by several processes: each takes a family at a time."""

import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import torch

from loragen.gate import Gate
from loragen.method.refine import RefineSpec
from loragen.suite.catalogues import CATALOGUES, CatalogueName
from loragen.suite.splits import Split
from loragen.training.checkpoint import Layout
from loragen.training.gate_evaluation import GateEvaluator
from loragen.training.gate_figures import Figures, Outcome, gate_figures
from loragen.training.progress import log_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """Tasks of one family on one split."""

    split: Split
    family: str
    count: int


def evaluate_gate(
    root: Path,
    name: CatalogueName,
    splits: Sequence[Split],
    tasks: int,
    gate: Gate,
    *,
    spec: RefineSpec,
    processes: int,
) -> dict[str, Figures]:
    """Return what the checkpoint in a folder gets under a gate, at least so many tasks a split.

    A process uses one core.
    """
    catalogue = CATALOGUES[name]
    shares = [
        Share(split, family.name, catalogue.prompts_per_family(split, tasks))
        for split in splits
        for family in catalogue.families(split)
    ]
    score = partial(_outcomes, root, name, spec)
    with ProcessPoolExecutor(
        min(processes, len(shares)), mp_context=get_context("spawn"), initializer=log_progress
    ) as pool:
        found = dict(zip(shares, pool.map(score, shares), strict=True))
    return {
        str(split): gate_figures(
            list(chain.from_iterable(found[share] for share in shares if share.split is split)),
            gate,
        )
        for split in splits
    }


def _outcomes(root: Path, name: CatalogueName, spec: RefineSpec, share: Share) -> list[Outcome]:
    families = CATALOGUES[name].families(share.split)
    (family,) = (each for each in families if each.name == share.family)
    outcomes = _evaluator(root, name, spec).outcomes(family, share.split, share.count)
    logger.info("%s %s gated", share.split, share.family)
    return outcomes


@cache
def _evaluator(root: Path, name: CatalogueName, spec: RefineSpec) -> GateEvaluator:
    """Return the evaluator of this process, which uses one core."""
    torch.set_num_threads(1)
    return GateEvaluator(Layout(root), CATALOGUES[name], spec)
