"""Pool product: the update of one vLLM linear layer, y += ((x A) * gates[slot of token]) B.

Sizes: T tokens of a step, D in, F out, R pool columns of a linear, m linears that vLLM packs into
one layer (gate and up: 2, down: 1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workers.matrix import PackedMatrix


class StepSlots:
    """The slot of every token of the running step: one buffer, read by all layers, never moved."""

    def __init__(self, *, tokens: int, zero_row: int, device: torch.device) -> None:
        self.rows_T = torch.full((tokens,), zero_row, dtype=torch.long, device=device)
        self.has_recipes = True
        """False lets layers skip the product. Only an eager engine may ever set it: a compiled or
        captured graph would keep the branch it was traced with."""
        self.version: int | None = None
        """Counts the calls of `point`, so that layers gather gates once for all steps alike. None,
        which it stays in any but an eager engine: they gather in every step."""

    def point(self, rows_T: Tensor, *, has_recipes: bool) -> None:
        """Take the rows of the coming step, if they or what they hold differ from the last's."""
        self.rows_T[: len(rows_T)].copy_(rows_T)
        self.has_recipes = has_recipes
        if self.version is not None:
            self.version += 1


class PoolProduct(nn.Module):
    """Adds a layer's pool update to its output, in place.

    A row of zero gates adds exact zeros, so tokens without a task get the base model's logits to
    the last bit, in any batch.
    """

    gates: Tensor  # [slots + 1, m, R]

    def __init__(
        self, pairs: Sequence[tuple[Tensor, Tensor]], gates: Tensor, step: StepSlots
    ) -> None:
        """Take (A [D, R], B [R, F]) of the m linears and their gates [slots + 1, m, R]."""
        super().__init__()
        self.step = step
        a_all = PackedMatrix(torch.cat([a_DR for a_DR, _ in pairs], dim=1))
        b_all = [PackedMatrix(b_RF) for _, b_RF in pairs]
        self.matrices = nn.ModuleList([a_all, *b_all])
        # Modules within modules are slow to find, which small steps feel; those of a tuple are not.
        self._a_all, self._b_all = (a_all,), tuple(b_all)
        self._widths = [b_RF.width for b_RF in b_all]
        self.register_buffer("gates", gates, persistent=False)
        self._gathered_TmR = gates[:0]
        self._gathered_version: int | None = None
        # Half precision reaches inf at 65504, and inf * 0 is NaN: a token without a task would pay
        # for a product it does not want. No other dtype can overflow here.
        self.clears_overflow = gates.dtype is torch.float16

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Return `output` [.., m * F] with the update for input `x` [.., D] added."""
        if not self.step.has_recipes:
            return output
        x_TD, out_TF = x.reshape(-1, x.shape[-1]), output.view(-1, output.shape[-1])
        gates_TmR = self._gather(x_TD.shape[0])
        (a_all,) = self._a_all
        h_TmR = a_all.times(x_TD).view_as(gates_TmR).mul_(gates_TmR)
        if self.clears_overflow:
            h_TmR.masked_fill_(gates_TmR == 0, 0)
        parts = zip(self._b_all, out_TF.split(self._widths, dim=1), h_TmR.unbind(1), strict=True)
        for b_RF, part_TF, h_TR in parts:
            b_RF.add_to(part_TF, h_TR)
        return output

    def _gather(self, tokens: int) -> Tensor:
        version = self.step.version
        if (
            version is not None
            and version == self._gathered_version
            and tokens == self._gathered_TmR.shape[0]
        ):
            return self._gathered_TmR
        gates_TmR = self.gates.index_select(0, self.step.rows_T[:tokens])
        # More tokens than requests: prompts are read, and the next step will be another.
        if version is not None and tokens <= self.gates.shape[0]:
            self._gathered_TmR, self._gathered_version = gates_TmR, version
        return gates_TmR
