"""Pool product: the update of one vLLM linear layer, y += ((x A) * gates[slot of token]) B.

Sizes: T tokens of a step, D in, F out, R pool columns of a linear, m linears that vLLM packs into
one layer (gate and up: 2, down: 1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StepSlots:
    """The slot of every token of the running step: one buffer, read by all layers, never moved."""

    def __init__(self, *, tokens: int, zero_row: int, device: torch.device) -> None:
        self.rows_T = torch.full((tokens,), zero_row, dtype=torch.long, device=device)
        self.has_recipes = True
        """False lets layers skip the product. Only an eager engine may ever set it: a compiled or
        captured graph would keep the branch it was traced with."""


class PoolProduct(nn.Module):
    """Adds a layer's pool update to its output, in place.

    A row of zero gates adds exact zeros, so tokens without a task get the base model's logits to
    the last bit, in any batch.
    """

    a_all: Tensor  # [D, m * R]
    gates: Tensor  # [slots + 1, m, R]

    def __init__(
        self, pairs: Sequence[tuple[Tensor, Tensor]], gates: Tensor, step: StepSlots
    ) -> None:
        """Take (A [D, R], B [R, F]) of the m linears and their gates [slots + 1, m, R]."""
        super().__init__()
        self.step = step
        self.widths = [b_RF.shape[1] for _, b_RF in pairs]
        self.register_buffer(
            "a_all", torch.cat([a_DR for a_DR, _ in pairs], dim=1).contiguous(), persistent=False
        )
        for index, (_, b_RF) in enumerate(pairs):
            self.register_buffer(f"b{index}_RF", b_RF.contiguous(), persistent=False)
        self.register_buffer("gates", gates, persistent=False)
        # Half precision reaches inf at 65504, and inf * 0 is NaN: a token without a task would pay
        # for a product it does not want. No other dtype can overflow here.
        self.clears_overflow = gates.dtype is torch.float16

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Return `output` [.., m * F] with the update for input `x` [.., D] added."""
        if not self.step.has_recipes:
            return output
        x_TD, out_TF = x.reshape(-1, x.shape[-1]), output.view(-1, output.shape[-1])
        gates_TmR = self.gates.index_select(0, self.step.rows_T[: x_TD.shape[0]])
        h_TmR = (x_TD @ self.a_all).view_as(gates_TmR).mul_(gates_TmR)
        if self.clears_overflow:
            h_TmR.masked_fill_(gates_TmR == 0, 0)
        start = 0
        for index, width in enumerate(self.widths):
            b_RF = self.get_buffer(f"b{index}_RF")
            out_TF[:, start : start + width].addmm_(h_TmR[:, index], b_RF)
            start += width
        return output
