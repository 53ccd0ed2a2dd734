"""vLLM's linear layers of an FFN with the pool's update in place of one adapter's.

Forward, bias, quantised base weights and tensor parallelism are vLLM's; only the update differs.
Under tensor parallelism each rank holds its rows of A (down) or columns of B (gate, up); the
update joins before vLLM's all-reduce, so the parts add up to the whole.
"""

import re
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from vllm.lora.layers import MergedColumnParallelLinearWithLoRA, RowParallelLinearWithLoRA
from vllm.lora.utils import replace_submodule

from loragen.errors import ConfigError
from loragen.method.pool import Pool
from workers.product import PoolProduct, StepSlots

LINEARS: Final = ("gate", "up", "down")
"""The linears a pool mixes, in the order of a recipe's gates."""

_MODULE: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.mlp\.(gate_up_proj|down_proj)$")


class GateUpWithPool(MergedColumnParallelLinearWithLoRA):  # type: ignore[misc]  # vLLM is untyped
    """gate_proj and up_proj in one layer."""

    product: PoolProduct

    def _apply_lora_to_output(self, x: Tensor, output: Tensor) -> Tensor:
        result: Tensor = self.product(x, output)
        return result


class DownWithPool(RowParallelLinearWithLoRA):  # type: ignore[misc]  # vLLM is untyped
    """down_proj."""

    product: PoolProduct

    def _apply_lora_to_output(self, x: Tensor, output: Tensor) -> Tensor:
        result: Tensor = self.product(x, output)
        return result


@dataclass(frozen=True, slots=True)
class LayerInstaller:
    """Puts the pool into a model: every FFN of every layer, or none."""

    pool: Pool
    gates: Tensor
    """[L, slots + 1, M, R], in the engine's dtype and on its device."""
    step: StepSlots

    def install(self, model: nn.Module) -> None:
        """Replace the FFN linears of `model`.

        Raises:
            ConfigError: the model's layers are not the ones this backend covers.
        """
        if self.pool.spec.linears != LINEARS:
            raise ConfigError(f"the gate backend mixes {LINEARS}, not {self.pool.spec.linears}")
        found = {}
        for name, module in model.named_modules():
            if match := _MODULE.search(name):
                found[int(match[1]), match[2]] = (name, module)
        layers = range(self.pool.spec.layers)
        expected = {(i, part) for i in layers for part in ("gate_up_proj", "down_proj")}
        if set(found) != expected:
            raise ConfigError(
                f"the gate backend needs mlp.gate_up_proj and mlp.down_proj in each of the pool's "
                f"{len(layers)} layers; this model has {len(found)} such modules"
            )
        for (layer, part), (name, module) in found.items():
            wrap = self._gate_up if part == "gate_up_proj" else self._down
            replace_submodule(model, name, wrap(layer, module))

    def _gate_up(self, layer: int, base: nn.Module) -> GateUpWithPool:
        module = GateUpWithPool(base)
        pairs = []
        for linear, width in zip(("gate", "up"), module.output_slices, strict=True):
            a_DR, b_RF = self._experts(layer, linear)
            start = module.tp_rank * width
            pairs.append((a_DR, b_RF[:, start : start + width]))
        module.product = PoolProduct(pairs, self.gates[layer, :, :2], self.step)
        return module

    def _down(self, layer: int, base: nn.Module) -> DownWithPool:
        module = DownWithPool(base)
        a_DR, b_RF = self._experts(layer, "down")
        start = module.tp_rank * module.input_size
        pair = (a_DR[start : start + module.input_size], b_RF)
        module.product = PoolProduct([pair], self.gates[layer, :, 2:], self.step)
        return module

    def _experts(self, layer: int, linear: str) -> tuple[Tensor, Tensor]:
        a_DR, b_RF = self.pool.tensors[layer, linear]
        return a_DR.to(self.gates), b_RF.to(self.gates)
