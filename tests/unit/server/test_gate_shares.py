"""What recipes use of their pool is seen over many of them, and in every layer on its own."""

import numpy as np
import pytest
from prometheus_client import REGISTRY

from loragen.recipe import Level, Recipe
from server.gate_shares import GateShares

EXPERTS = 8
LAYERS = 3


def show(model: str, recipes: list[Recipe]) -> float | None:
    shares = GateShares()
    for recipe in recipes:
        shares.add(model, recipe)
    return REGISTRY.get_sample_value("loragen_router_effective_experts", {"model": model})


def paper(rng: np.random.Generator, *, among: int) -> Recipe:
    """Return a recipe of level 0 that keeps two experts of the first so many, in each layer."""
    gates = np.zeros((LAYERS, 1, EXPERTS), dtype=np.float32)
    for layer in range(LAYERS):
        first, second = rng.choice(among, size=2, replace=False)
        # Shifted by layer: together the layers use all experts, collapsed or not.
        gates[layer, 0, (first + 2 * layer) % EXPERTS] = 0.7
        gates[layer, 0, (second + 2 * layer) % EXPERTS] = 0.3
    return Recipe.encode(gates, pool_id="ab" * 32, level=Level.PAPER)


def test_recipes_that_differ_use_all_experts_and_equal_ones_a_quarter() -> None:
    rng = np.random.default_rng(0)
    healthy = show("healthy", [paper(rng, among=8) for _ in range(64)])
    collapsed = show("collapsed", [paper(rng, among=2) for _ in range(64)])
    assert healthy is not None
    assert collapsed is not None
    assert healthy > 0.9
    assert collapsed <= 0.25
    shares = [
        REGISTRY.get_sample_value(
            "loragen_router_gate_share", {"model": "healthy", "expert": str(expert)}
        )
        for expert in range(EXPERTS)
    ]
    assert sum(share or 0.0 for share in shares) == pytest.approx(1)


def test_signed_gates_count_by_their_size() -> None:
    rng = np.random.default_rng(0)
    dense = [
        Recipe.encode(
            rng.standard_normal((LAYERS, 2, EXPERTS)).astype(np.float32),
            pool_id="ab" * 32,
            level=Level.DENSE,
        )
        for _ in range(40)
    ]
    assert (show("dense", dense) or 0) > 0.9


def test_a_few_recipes_say_nothing_and_another_pool_begins_anew() -> None:
    rng = np.random.default_rng(0)
    few = [paper(rng, among=2) for _ in range(31)]
    assert show("few", few) is None
    other = [
        Recipe.encode(each.gates, pool_id="cd" * 32, level=Level.PAPER)
        for each in (paper(rng, among=8) for _ in range(31))
    ]
    assert show("pools", [*few, *other]) is None


def test_recipes_without_any_gate_are_no_collapse() -> None:
    gates = np.zeros((LAYERS, 1, EXPERTS), dtype=np.float32)
    nothing = Recipe.encode(gates, pool_id="ab" * 32, level=Level.PAPER)
    assert show("nothing", [nothing] * 40) == pytest.approx(1)
