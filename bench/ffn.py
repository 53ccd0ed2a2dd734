"""FFN blocks of one shape, served three ways: bare, from our pool, by adapters in groups.

All ways share vLLM's own CPU kernels for the base weights. Blocks follow each other as layers do
and are larger than any cache together: a step reads all weights from memory, as a real one does.

*Grouped* is what a good multi-LoRA kernel does (Punica's and vLLM's on a GPU): tokens lie sorted by
adapter, and each distinct adapter costs one small product with its A and one with its B. vLLM's
own CPU kernels gather weights token by token and are several times slower; they would prove
nothing. Adapters have rank 32, of a paper recipe (2 of 8 experts of rank 16) made into matrices:
the least a recipe needs. A dense recipe of 128 experts would need rank 128, four times as much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Self, cast

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

from workers.matrix import PackedMatrix
from workers.product import PoolProduct, StepSlots

DTYPE: Final = torch.bfloat16
ADAPTER_RANK: Final = 32
MAX_DISTINCT: Final = 64

Update = Callable[[Tensor, Tensor], Tensor]
"""(input [T, D], output [T, F]) -> the output with a task's update in it."""


@dataclass(frozen=True, slots=True)
class FfnSize:
    """Model width d, FFN width f, pool columns R per linear, and how many blocks."""

    hidden: int
    intermediate: int
    columns: int
    blocks: int

    @property
    def ceiling(self) -> float:
        """Bare time over gate-space time if both cost by the weights they read and multiply."""
        return 1 / (1 + self.columns * (1 / self.hidden + 1 / self.intermediate))


class Block:
    """One FFN with vLLM's kernels, a pool beside it, and adapters of MAX_DISTINCT tasks."""

    def __init__(self, size: FfnSize, step: StepSlots) -> None:
        d, f, columns = size.hidden, size.intermediate, size.columns
        self.gate_up = base_linear(d, 2 * f)
        self.down = base_linear(f, d)
        gates = torch.randn(MAX_DISTINCT + 1, 3, columns).to(DTYPE)
        self.pool = (
            PoolProduct([experts(d, columns, f) for _ in range(2)], gates[:, :2], step),
            PoolProduct([experts(f, columns, d)], gates[:, 2:], step),
        )
        self.adapters = [
            (GroupAdapter(d, (f, f)), GroupAdapter(f, (d,))) for _ in range(MAX_DISTINCT)
        ]

    def bare(self, x_TD: Tensor) -> Tensor:
        """Return the FFN's output [T, d] without any update."""
        return self.down(activate(self.gate_up(x_TD)))

    def gate_space(self, x_TD: Tensor) -> Tensor:
        """Return it with the update of each token's slot."""
        gate_up, down = self.pool
        wide = activate(gate_up(x_TD, self.gate_up(x_TD)))
        result: Tensor = down(wide, self.down(wide))
        return result

    def grouped(self, x_TD: Tensor, distinct: int) -> Tensor:
        """Return it with the updates of `distinct` adapters, each on an equal run of tokens."""
        used = self.adapters[:distinct]
        wide = self.gate_up(x_TD)
        in_groups([gate_up for gate_up, _ in used], x_TD, wide)
        wide = activate(wide)
        output = self.down(wide)
        in_groups([down for _, down in used], wide, output)
        return output


class GroupAdapter:
    """(A, B) of one task for a layer of one or two packed linears; A's lie side by side."""

    def __init__(self, inner: int, widths: Sequence[int]) -> None:
        self._widths = list(widths)
        self._a = PackedMatrix(random_matrix(inner, len(widths) * ADAPTER_RANK))
        self._b = [PackedMatrix(random_matrix(ADAPTER_RANK, width)) for width in widths]

    def add_to(self, out_TF: Tensor, x_TD: Tensor) -> None:
        """Add this adapter's update for all rows of `x_TD`, in place."""
        h_TR = self._a.times(x_TD)
        parts = zip(
            self._b,
            out_TF.split(self._widths, dim=1),
            h_TR.split(ADAPTER_RANK, dim=1),
            strict=True,
        )
        for b_RF, part_TF, part_TR in parts:
            b_RF.add_to(part_TF, part_TR)


@dataclass(frozen=True, slots=True)
class FfnStack:
    """The blocks of one shape with the step that their pools follow."""

    size: FfnSize
    blocks: Sequence[Block]
    step: StepSlots

    @classmethod
    def random(cls, size: FfnSize, *, tokens: int) -> Self:
        """Make blocks of random weights."""
        step = StepSlots(tokens=tokens, zero_row=MAX_DISTINCT, device=torch.device("cpu"))
        return cls(size, [Block(size, step) for _ in range(size.blocks)], step)

    def ways(self, tokens: int, distinct: Sequence[int]) -> dict[str, Callable[[], Tensor]]:
        """Return one step of `tokens` tokens per way, and per number of distinct tasks in it."""
        x_TD = torch.randn(tokens, self.size.hidden).to(DTYPE)
        ways: dict[str, Callable[[], Tensor]] = {"bare": partial(self._bare, x_TD)}
        for count in distinct:
            ways[f"gate_{count}"] = partial(self._gate_space, x_TD, count)
            ways[f"grouped_{count}"] = partial(self._grouped, x_TD, count)
        return ways

    def _bare(self, x_TD: Tensor) -> Tensor:
        for block in self.blocks:
            x_TD = block.bare(x_TD)
        return x_TD

    def _gate_space(self, x_TD: Tensor, distinct: int) -> Tensor:
        tokens = x_TD.shape[0]
        self.step.rows_T[:tokens] = torch.arange(tokens) * distinct // tokens
        for block in self.blocks:
            x_TD = block.gate_space(x_TD)
        return x_TD

    def _grouped(self, x_TD: Tensor, distinct: int) -> Tensor:
        for block in self.blocks:
            x_TD = block.grouped(x_TD, distinct)
        return x_TD


def in_groups(adapters: Sequence[GroupAdapter], x_TD: Tensor, out_TF: Tensor) -> None:
    """Add each adapter's update to its equal share of the rows, in order."""
    rows = x_TD.shape[0] // len(adapters)
    for index, adapter in enumerate(adapters):
        part = slice(index * rows, (index + 1) * rows)
        adapter.add_to(out_TF[part], x_TD[part])


def base_linear(inner: int, outer: int) -> Callable[[Tensor], Tensor]:
    """Return a linear as vLLM's CPU worker would run it."""
    layer = nn.Module()
    layer.weight = weight_FD = nn.Parameter(random_matrix(outer, inner), requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    kernel = cast(Callable[[Tensor, Tensor, Tensor | None], Tensor], layer.cpu_linear)
    return lambda x_TD: kernel(x_TD, weight_FD, None)


def activate(wide: Tensor) -> Tensor:
    """Return silu(gate) * up, by vLLM's kernel."""
    result = torch.empty(wide.shape[0], wide.shape[1] // 2, dtype=wide.dtype)
    torch.ops._C.silu_and_mul(result, wide)
    return result


def experts(inner: int, columns: int, outer: int) -> tuple[Tensor, Tensor]:
    """Return (A, B) of a pool's linear."""
    return random_matrix(inner, columns), random_matrix(columns, outer)


def random_matrix(rows: int, columns: int) -> Tensor:
    """Return a matrix that neither grows nor shrinks what it is multiplied with."""
    return torch.empty(rows, columns, dtype=DTYPE).normal_(std=max(rows, columns) ** -0.5)
