"""Backends: the LoRA manager of each, and the making of the one that a worker has."""

from collections.abc import Mapping
from typing import Any, Final

from vllm.lora.worker_manager import WorkerLoRAManager

from loragen.errors import ConfigError
from workers.manager import GateSpaceManager
from workers.materialise import MaterialiseManager
from workers.spec import WorkerSpec

MANAGERS: Final[Mapping[str, type[WorkerLoRAManager]]] = {
    "gate": GateSpaceManager,
    "materialise": MaterialiseManager,
}


def make_manager(vllm_config: Any, *arguments: Any, **options: Any) -> WorkerLoRAManager:
    """Return the manager that a model runner asks for.

    Raises:
        ConfigError: vLLM was started without our launcher.
    """
    backend = WorkerSpec.from_additional_config(vllm_config.additional_config).backend
    if backend not in MANAGERS:
        raise ConfigError(f"backend {backend!r} was not decided: start workers with their launcher")
    return MANAGERS[backend](vllm_config, *arguments, **options)
