"""Materialising LoRA manager: a recipe becomes an ordinary adapter in one of vLLM's own slots.

For models whose layers the gate backend does not cover: exact too, and without files, but it costs
what adapters cost. A recipe takes milliseconds to come in, a batch holds no more different ones
than there are slots, and with S of them, linears D -> F, R pool columns and e bytes per number

    slots      (S + 1) * L * R * sum(D + F) * e
    adapters   S * L * R * sum(F) * e, in the host's memory; their A is the pool's and shared

As in `workers.manager`, what is raised while requests run means that our own code is wrong.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.platforms import current_platform
from vllm.utils.gpu_sync_debug import gpu_sync_allowed

from loragen.errors import ConfigError
from loragen.method.pool import PoolSpec
from loragen.recipe import Gates
from workers.reader import RecipeReader

RANKS: Final = (1, 8, 16, 32, 64, 128, 256)
"""Ranks that vLLM 0.32 takes, up to the most columns of a pool."""

_LINEAR: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.(?:.*\.)?(\w+)_proj$")


class Adapter(LoRAModel):  # type: ignore[misc]  # vLLM is untyped
    """The adapter of one recipe. It knows which, for vLLM knows adapters by number alone."""

    def __init__(
        self, number: int, recipe_id: str, rank: int, weights: dict[str, LoRALayerWeights]
    ) -> None:
        super().__init__(number, rank, weights)
        self.recipe_id = recipe_id


class MaterialiseManager(LRUCacheWorkerLoRAManager):  # type: ignore[misc]
    """vLLM's own manager, whose adapters are made of recipes."""

    lora_config: Any

    def __init__(
        self, vllm_config: Any, device: torch.device, embedding_modules: Any, **options: Any
    ) -> None:
        super().__init__(vllm_config, device, embedding_modules, **options)
        self._reader = RecipeReader.load(vllm_config)
        self._pool = self._reader.pool
        self._slots = self.lora_config.max_loras
        if current_platform.is_cpu():
            # Its kernels serve tokens without a task by the last slot: one more, which stays empty.
            slots = self._slots + 1
            self.lora_config = replace(self.lora_config, max_loras=slots, max_cpu_loras=slots)
        self._inputs = {  # A of every adapter
            key: a_DR.T.to(self.lora_config.lora_dtype)
            for key, (a_DR, _) in self._pool.tensors.items()
        }
        self._names: Mapping[tuple[int, str], str] = {}

    def create_lora_manager(self, model: nn.Module, vllm_config: Any) -> nn.Module:
        """Put empty slots into the model's linears.

        Raises:
            ConfigError: the model has not the linears of the pool, or vLLM no slots for them.
        """
        model = super().create_lora_manager(model, vllm_config)
        self._names = self._names_of_linears()
        missing = sorted(set(self._pool.tensors) - set(self._names))
        if missing:
            raise ConfigError(f"vLLM takes no adapters for the pool's linears {missing[:3]} ..")
        return model

    def set_active_adapters(self, requests: Collection[Any], mapping: Any) -> None:
        """Point every token of the coming step at the slot of its recipe."""
        # Two recipes under one number would answer one tenant with another's task.
        numbers = {request.lora_int_id for request in requests}
        assert len(numbers) == len(requests), numbers
        super().set_active_adapters(requests, mapping)

    def add_adapter(self, request: Any) -> bool:
        """Place one recipe; return whether it was not there yet."""
        with gpu_sync_allowed():
            held = self._adapter_manager.get_adapter(request.lora_int_id)
            is_new = held is None or held.recipe_id != request.lora_name
            if is_new:
                self._place(self._adapter(request, self._reader.gates(request)))
            else:
                self._adapter_manager.add_adapter(held)  # now the latest used
            self._adapter_manager.activate_adapter(request.lora_int_id)
        return is_new

    def add_dummy_lora(self, request: Any, rank: int) -> bool:
        """Place the recipe of a warm-up run: no gates at all."""
        spec = self._pool.spec
        gates = np.zeros((spec.layers, len(spec.linears), spec.columns), dtype=np.float32)
        self._place(self._adapter(request, gates))
        return True

    def pin_adapter(self, adapter_id: int) -> bool:
        """Refuse: a pinned recipe would be tenant state in the worker."""
        return False

    def _place(self, adapter: Adapter) -> None:
        manager = self._adapter_manager
        manager.remove_adapter(adapter.id)  # the number may be used again for another recipe
        # Of so few adapters none ever comes to the last slot: vLLM takes the first that is free.
        while len(manager) >= self._slots:
            manager.remove_oldest_adapter()
        manager.add_adapter(adapter)

    def _adapter(self, request: Any, gates_LMR: Gates) -> Adapter:
        spec, rank = self._pool.spec, self._pool.spec.columns
        weights = {}
        for (layer, linear), (_, b_RF) in self._pool.tensors.items():
            name, a_RD = self._names[layer, linear], self._inputs[layer, linear]
            gates_R = torch.from_numpy(gates_LMR[layer, spec.linears.index(linear)])
            b_FR = (gates_R[:, None] * b_RF).T.to(a_RD.dtype)
            weights[name] = LoRALayerWeights(name, rank, rank, a_RD, b_FR)
        return Adapter(request.lora_int_id, request.lora_name, rank, weights)

    def _names_of_linears(self) -> dict[tuple[int, str], str]:
        """Return the name of every (layer, linear) that has slots, as adapters call it."""
        manager = self._adapter_manager
        names: dict[tuple[int, str], str] = {}
        for module in manager.modules:
            for name in manager.packed_modules.get(module, [module]):
                match = _LINEAR.search(name)
                if match is None:
                    continue
                key = int(match[1]), match[2]
                if key in names:
                    raise ConfigError(f"adapters could go to {name} and to {names[key]}")
                names[key] = name
        return names


def slot_arguments(pool: PoolSpec, *, slots: int) -> dict[str, Any]:
    """Return vLLM's arguments for slots that the adapters of a pool's recipes fit in."""
    return {
        "max_loras": slots,
        "max_lora_rank": next(rank for rank in RANKS if rank >= pool.columns),
        "lora_target_modules": [f"{linear}_proj" for linear in pool.linears],
    }
