"""Gate-space LoRA manager: serves any number of recipes in a batch from one shared pool.

vLLM's model runner believes it manages adapters in slots. A slot here is one row of the gates
table; the experts lie once in static buffers. Memory beyond the base model, with e bytes per
number, S slots, L layers, M = 3 linears, R pool columns, model width d, FFN width f:

    experts         3 * L * R * (d + f) * e
    gates table     (S + 1) * L * M * R * e
    slot of tokens  8 * max_num_batched_tokens
    gates of tokens (S + 1) * L * M * R * e at most, kept from step to step (eager engines only)
    per layer       (f + 4 * R) * T * e at most, freed again (T tokens; without the f on a GPU)

22 layers, d = 2048, f = 5632, R = 64, S = 64, bfloat16: 65 MB + 0.55 MB + 64 KB (T = 8192) +
0.55 MB + 96 MB on a CPU, 4 MB on a GPU, while 8192 tokens are read.

An exception in `set_active_adapters` kills the engine, so recipes are validated in the API
process; what is raised here means that our own code is wrong, and never serves a wrong recipe.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.lora.worker_manager import WorkerLoRAManager

from workers.layers import LayerInstaller
from workers.product import StepSlots
from workers.reader import RecipeReader
from workers.slots import SlotTable

Step = tuple[frozenset[int], tuple[int, ...], int]
"""What a step's rows follow from: its requests' identities, each token's number, slot changes."""


class GateSpaceManager(WorkerLoRAManager):  # type: ignore[misc]  # vLLM is untyped
    """Offers the model runner what vLLM's LRUCacheWorkerLoRAManager does."""

    def __init__(
        self, vllm_config: Any, device: torch.device, embedding_modules: Any, **options: Any
    ) -> None:
        super().__init__(vllm_config, device, embedding_modules, **options)
        self._reader = RecipeReader.load(vllm_config)
        self._pool = self._reader.pool
        self._slots = SlotTable(self.lora_config.max_loras)
        # Graphs keep padding rows: vLLM rounds their sizes up to a multiple of 8.
        self.step = StepSlots(
            tokens=-(-self.max_num_batched_tokens // 8) * 8,
            zero_row=self._slots.zero_row,
            device=device,
        )
        spec = self._pool.spec
        self.gates = torch.zeros(
            (spec.layers, self._slots.rows + 1, len(spec.linears), spec.columns),
            dtype=vllm_config.model_config.dtype,
            device=device,
        )
        self._last_step: Step | None = None
        self._last_requests: Collection[Any] = ()  # alive, so that no other takes their identities
        compilation = vllm_config.compilation_config
        self._is_eager = (
            compilation.mode == CompilationMode.NONE
            and compilation.cudagraph_mode == CUDAGraphMode.NONE
        )
        if self._is_eager:
            self.step.version = 0

    def create_lora_manager(self, model: nn.Module, vllm_config: Any) -> nn.Module:
        """Put the pool into the model."""
        LayerInstaller(self._pool, self.gates, self.step).install(model)
        return model

    def set_active_adapters(self, requests: Collection[Any], mapping: Any) -> None:
        """Point every token of the coming step at the gates of its recipe."""
        tokens = mapping.index_mapping  # one lora_int_id per token, 0 without a task
        # Requests compare by name alone, and at the price of a call in Python each; while a batch
        # stays the same vLLM hands over the same objects.
        identities = frozenset(map(id, requests))
        if (identities, tokens, self._slots.changes) == self._last_step:
            return
        numbers = {request.lora_int_id for request in requests}
        self._admit(requests)
        rows = {number: self._slots.row(number) for number in numbers}
        rows[0] = self._slots.zero_row
        slots_T = np.fromiter(map(rows.__getitem__, tokens), dtype=np.int64, count=len(tokens))
        has_recipes = bool(numbers) or not self._is_eager
        self.step.point(torch.from_numpy(slots_T), has_recipes=has_recipes)
        self._last_requests = tuple(requests)
        self._last_step = (identities, tokens, self._slots.changes)

    def add_adapter(self, request: Any) -> bool:
        """Place one recipe; return whether it was not there yet."""
        return bool(self._admit([request]))

    def add_dummy_lora(self, request: Any, rank: int) -> bool:
        """Place the recipe of a warm-up run: no gates at all."""
        written = self._slots.place({request.lora_int_id: request.lora_name})
        for row in written.values():
            self.gates[:, row] = 0
        return bool(written)

    def get_dummy_lora_warmup_rank(self, default_rank: int) -> int:
        """Return the rank of warm-up adapters; a recipe has none."""
        return default_rank

    def remove_adapter(self, adapter_id: int) -> bool:
        """Free the row of a recipe."""
        return self._slots.drop(adapter_id)

    def pin_adapter(self, adapter_id: int) -> bool:
        """Refuse: a pinned recipe would be tenant state in the worker."""
        return False

    def list_adapters(self) -> set[int]:
        """Return the numbers of the recipes placed."""
        return self._slots.ids()

    def remove_all_adapters(self) -> None:
        """Free all rows."""
        self._slots.clear()

    def supports_tower_connector_lora(self) -> bool:
        """Whether recipes reach the towers of a multimodal model: no."""
        return False

    def _admit(self, requests: Collection[Any]) -> dict[int, int]:
        wanted = {request.lora_int_id: request.lora_name for request in requests}
        # Two recipes under one number would answer one tenant with another's task.
        assert len(wanted) == len({request.lora_name for request in requests}), wanted
        # Decode before placing: a recipe that fails must not leave its name on another's gates.
        fresh = {
            request.lora_int_id: self._reader.gates(request)
            for request in requests
            if not self._slots.holds(request.lora_int_id, request.lora_name)
        }
        written = self._slots.place(wanted)
        for number, row in written.items():
            self.gates[:, row].copy_(torch.from_numpy(fresh[number]))
        return written
