"""Gate shares: how a generator spreads its recipes over the experts of its pool.

A router that collapsed gives the same few experts to every prompt; no single recipe shows it, for
in the paper's level each keeps two. So shares are averaged over the last recipes, in every layer
and linear on its own, and only then is it counted how many experts are in use.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from loragen import metrics
from loragen.recipe import Recipe

_WINDOW: Final = 64
"""Recipes that the average is of, about."""
_ENOUGH: Final = 32
"""Fewer recipes are of few experts by nature."""

Shares = npt.NDArray[np.float64]
"""Of each expert [layers, linears, experts]; they sum to 1 over experts."""


@dataclass(slots=True)
class _Average:
    shares: Shares
    recipes: int = 0


class GateShares:
    """Averages the recipes that are compiled, by edge model and pool."""

    def __init__(self) -> None:
        self._averages: dict[tuple[str, str], _Average] = {}

    def add(self, edge_model: str, recipe: Recipe) -> None:
        """Take a new recipe in, and show what the last ones use."""
        shares = _shares(recipe)
        key = (edge_model, recipe.pool_id)  # in an upgrade two pools have recipes at once
        average = self._averages.setdefault(key, _Average(np.zeros_like(shares)))
        if average.shares.shape != shares.shape:  # L0 and L1 of one pool
            return
        average.recipes += 1
        weight = 1 / min(average.recipes, _WINDOW)
        average.shares += weight * (shares - average.shares)
        if average.recipes >= _ENOUGH:
            self._show(edge_model, average.shares)

    def _show(self, edge_model: str, shares: Shares) -> None:
        for expert, share in enumerate(shares.mean((0, 1))):
            metrics.ROUTER_GATE_SHARE.labels(edge_model, str(expert)).set(share)
        metrics.ROUTER_EFFECTIVE_EXPERTS.labels(edge_model).set(effective_experts(shares))


def effective_experts(shares: Shares) -> float:
    """Return the part of the experts in use: exp of the shares' entropy by n, mean over linears.

    1 where all have the same share, 1/n where one has all.
    """
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(-1)
    return float(np.exp(entropy).mean() / shares.shape[-1])


def _shares(recipe: Recipe) -> Shares:
    """Return each expert's share of the gates' size; nothing has equal shares."""
    sizes = np.abs(recipe.gates.astype(np.float64))
    total = sizes.sum(-1, keepdims=True)
    even = np.full_like(sizes, 1 / sizes.shape[-1])
    shares: Shares = np.divide(sizes, total, out=even, where=total > 0)
    return shares
