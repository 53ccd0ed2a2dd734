"""vLLM's linear layers of an FFN with the pool's update in place of one adapter's.

Forward, bias, quantised base weights and tensor parallelism are vLLM's; only the update differs.
Under tensor parallelism each rank holds its rows of A (down) or columns of B (gate, up); the
update joins before vLLM's all-reduce, so the parts add up to the whole.

Most of vLLM's models keep gate and up in one layer, some keep them apart or have no gate, and
models that vLLM runs by their Transformers code may hold every linear whole on every rank.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn
from vllm.lora.layers import (
    ColumnParallelLinearWithLoRA,
    MergedColumnParallelLinearWithLoRA,
    ReplicatedLinearWithLoRA,
    RowParallelLinearWithLoRA,
)
from vllm.lora.utils import replace_submodule
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)

from loragen.errors import ConfigError
from loragen.method.pool import Pool
from workers.coverage import GATE_LINEARS
from workers.product import PoolProduct, StepSlots

_MODULE: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.mlp\.(gate_up|gate|up|down)_proj$")


def _add_update(layer: Any, x: Tensor, output: Tensor) -> Tensor:
    result: Tensor = layer.product(x, output)
    return result


class GateUpWithPool(MergedColumnParallelLinearWithLoRA):  # type: ignore[misc]  # vLLM is untyped
    """gate_proj and up_proj in one layer."""

    product: PoolProduct
    _apply_lora_to_output = _add_update


class ColumnWithPool(ColumnParallelLinearWithLoRA):  # type: ignore[misc]
    """gate_proj or up_proj, each rank with its outputs."""

    product: PoolProduct
    _apply_lora_to_output = _add_update


class RowWithPool(RowParallelLinearWithLoRA):  # type: ignore[misc]
    """down_proj, each rank with its inputs."""

    product: PoolProduct
    _apply_lora_to_output = _add_update


class WholeWithPool(ReplicatedLinearWithLoRA):  # type: ignore[misc]
    """Any of them, whole on every rank."""

    product: PoolProduct
    _apply_lora_to_output = _add_update


_WRAPPERS: Final[Mapping[type[nn.Module], type[nn.Module]]] = {
    MergedColumnParallelLinear: GateUpWithPool,  # before the class it derives from
    ColumnParallelLinear: ColumnWithPool,
    RowParallelLinear: RowWithPool,
    ReplicatedLinear: WholeWithPool,
}


@dataclass(frozen=True, slots=True)
class _Place:
    """One module of the model and the linears in it."""

    name: str
    layer: int
    linears: tuple[str, ...]

    @property
    def keys(self) -> list[tuple[int, str]]:
        """The linears as a pool names them."""
        return [(self.layer, linear) for linear in self.linears]


@dataclass(frozen=True, slots=True)
class LayerInstaller:
    """Puts the pool into a model: every linear of every layer, or none."""

    pool: Pool
    gates: Tensor
    """[L, slots + 1, M, R], in the engine's dtype and on its device."""
    step: StepSlots

    def install(self, model: nn.Module) -> None:
        """Replace the FFN linears of `model`.

        Raises:
            ConfigError: the model's layers are not the ones this backend covers.
        """
        linears = self.pool.spec.linears
        if linears != tuple(linear for linear in GATE_LINEARS if linear in linears):
            raise ConfigError(f"the gate backend mixes {GATE_LINEARS} in this order, not {linears}")
        places = _places(model)
        if sorted(key for place in places for key in place.keys) != sorted(self.pool.tensors):
            raise ConfigError(
                f"the gate backend needs {', '.join(linears)} projections under mlp in each of "
                f"the pool's {self.pool.spec.layers} layers, and no others of {GATE_LINEARS}; "
                f"this model has {len(places)} such modules"
            )
        for place in places:
            wrapped = self._wrap(place, model.get_submodule(place.name))
            replace_submodule(model, place.name, wrapped)

    def _wrap(self, place: _Place, base: nn.Module) -> nn.Module:
        wrapper = next((w for known, w in _WRAPPERS.items() if isinstance(base, known)), None)
        if wrapper is None:
            raise ConfigError(
                f"the gate backend takes no {type(base).__name__}, as {place.name} is"
            )
        if getattr(base, "weight", self.gates) is None:
            # Its kernel keeps the weights elsewhere; vLLM asks them for their device all the same.
            base.weight = nn.Parameter(self.gates.new_empty(0), requires_grad=False)
        module = wrapper(base)
        pairs = [self._share(key, module) for key in place.keys]
        first = self.pool.spec.linears.index(place.linears[0])
        gates = self.gates[place.layer, :, first : first + len(pairs)]
        module.product = PoolProduct(pairs, gates, self.step)
        return module

    def _share(self, key: tuple[int, str], module: Any) -> tuple[Tensor, Tensor]:
        """Return this rank's part of A and B."""
        a_DR, b_RF = (side.to(self.gates) for side in self.pool.tensors[key])
        match module:
            case RowWithPool():
                start = module.tp_rank * module.input_size
                return a_DR[start : start + module.input_size], b_RF
            case GateUpWithPool() | ColumnWithPool():
                width = module.output_size // module.n_slices
                start = module.tp_rank * width
                return a_DR, b_RF[:, start : start + width]
            case _:
                return a_DR, b_RF


def _places(model: nn.Module) -> list[_Place]:
    found = []
    for name, _ in model.named_modules():
        if match := _MODULE.search(name):
            found.append(_Place(name, int(match[1]), tuple(match[2].split("_"))))
    return found
