"""Gate space: the update of a linear layer, computed without ever building a task's matrices.

y = x W + ((x A) * g) B, with A [D, R] and B [R, F] shared by all tasks and only g [R] a task's own
(paper Eq. 8 with whole outer products mixed: sum_e g_e A_e B_e). Rows of one batch may belong to
different tasks; a row of zeros is a row without a task and leaves y untouched to the bit.
"""

from collections.abc import Sequence

import torch

from loragen.method.pool import PoolSpec
from loragen.recipe import Recipe


def delta(
    x_BTD: torch.Tensor, gates_BR: torch.Tensor, a_DR: torch.Tensor, b_RF: torch.Tensor
) -> torch.Tensor:
    """Return the update [B, T, F] of a linear layer, each row under its own gates."""
    delta_BTF: torch.Tensor = ((x_BTD @ a_DR) * gates_BR[:, None]) @ b_RF
    return delta_BTF


def stack_gates(recipes: Sequence[Recipe | None], pool_id: str, spec: PoolSpec) -> torch.Tensor:
    """Return gates [B, L, M, R] of one recipe per row, zeros where a row has none.

    Raises:
        RecipeMismatch: a recipe was compiled for another pool.
        RecipeInvalid: a recipe has a shape this pool cannot mix.
    """
    linears = len(spec.linears)
    gates_BLMR = torch.zeros(len(recipes), spec.layers, linears, spec.columns)
    for row, recipe in enumerate(recipes):
        if recipe is None:
            continue
        recipe.require_pool(pool_id, layers=spec.layers, linears=linears, experts=spec.experts)
        gates_BLMR[row] = torch.from_numpy(recipe.expand(linears=linears, rank=spec.rank))
    return gates_BLMR
