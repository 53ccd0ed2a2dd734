"""Launch: one edge model's settings -> the vLLM server process that serves it.

Everything wrong with configuration or files that can be seen without torch is refused here, in
milliseconds; `workers.serve` checks pool and model in the process that this one turns into.
"""

import ipaddress
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, Self

from config.edge_model import EdgeModelSettings
from config.environment import child_environment
from config.settings import Settings
from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.families import compiled_template
from loragen.own_template import OwnTemplate
from loragen.template import CompiledTemplate
from workers.plugin import CPU_DISTRIBUTION, installed_vllm, require_supported_vllm
from workers.spec import WorkerSpec

_IN_THE_ENGINE: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
_ENVIRONMENT: Final[Mapping[str, str]] = {
    # Both entry points of ours and no other: naming them also keeps vLLM's LoRA resolvers out.
    "VLLM_PLUGINS": "loragen,loragen_api",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_SERVER_DEV_MODE": "0",
    "VLLM_SKIP_MODEL_NAME_VALIDATION": "0",
    # The Rust front end and the response store would go around our endpoint plugin.
    "VLLM_USE_RUST_FRONTEND": "0",
    "VLLM_ENABLE_RESPONSES_API_STORE": "0",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "0",
    "VLLM_NO_USAGE_STATS": "1",
    # Its two streams go around our layers.
    "VLLM_LORA_ENABLE_DUAL_STREAM": "0",
    # What ends an engine with its server is set up where its process begins: a forked one has none.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # vLLM starts processes of thousands of modules each: not to compile these every time
    # more than halves a start, so the wish for no byte code on disk is overruled.
    "PYTHONDONTWRITEBYTECODE": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A vLLM server as arguments and environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def plan(cls, settings: Settings, model: EdgeModelSettings, *, host: str, port: int) -> Self:
        """Derive the server of one edge model.

        Raises:
            ConfigError: unsupported vLLM, or an open address without a secret.
            ArtifactCorrupt: the model's files or its pool are missing.
        """
        require_supported_vllm()
        if settings.worker_secret is None and not _is_loopback(host):
            raise ConfigError(
                f"refusing to bind {host} without a key: set LORAGEN_WORKER_SECRET "
                "or bind a loopback address"
            )
        on_cpu = installed_vllm()[0] == CPU_DISTRIBUTION
        secret = settings.worker_secret
        environment = {
            **_ENVIRONMENT,
            "VLLM_LOGGING_LEVEL": settings.logs.level,
            "VLLM_API_KEY": secret.get_secret_value() if secret else "",
            **(_cpu_environment() if on_cpu else {}),
        }
        arguments = (
            *_server_arguments(host, port),
            *_model_arguments(model),
            *_recipe_arguments(model),
            *_tool_arguments(model),
            *(_cpu_arguments(model) if on_cpu else ()),
            *model.engine_args,
        )
        return cls(arguments, environment)

    def become(self) -> NoReturn:
        """Turn this process into the server, so that signals reach vLLM as it expects them."""
        command = [sys.executable, "-m", "workers.serve", *self.arguments]
        os.execve(sys.executable, command, child_environment(**self.environment))  # noqa: S606


def worker_spec(model: EdgeModelSettings) -> WorkerSpec:
    """Return what a worker of this edge model serves.

    Raises:
        ArtifactCorrupt: a file is missing.
    """
    if not (model.model / "config.json").is_file():
        raise ArtifactCorrupt(f"edge model {model.name!r}: no config.json in {model.model}")
    own = OwnTemplate.load(model.model, model.chat_template)
    compiled = _compiled_template(model, own)
    pool = model.pool_file
    if pool is None or compiled is None:
        return WorkerSpec(model.name, own.hash)
    if not pool.is_file():
        raise ArtifactCorrupt(f"edge model {model.name!r}: no pool {pool}")
    return WorkerSpec(
        model.name,
        compiled.hash,
        pool,
        backend=model.backend,
        adapter_slots=min(model.adapter_slots, model.max_num_seqs),
    )


def _compiled_template(model: EdgeModelSettings, own: OwnTemplate) -> CompiledTemplate | None:
    if model.pool_file is None:
        return None
    compiled = compiled_template(own, model.model, model.compiled_template)
    if compiled is None:
        raise ConfigError(
            f"edge model {model.name!r}: its chat template is of no family whose compiled template "
            "we know: set compiled_template, or serve it without generator or pool, in prompt mode"
        )
    return compiled


def _server_arguments(host: str, port: int) -> tuple[str, ...]:
    return (
        f"--host={host}",
        f"--port={port}",
        "--allowed-origins=[]",  # only the gateway calls; no browser page may
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",  # they would hold prompts
        "--disable-fastapi-docs",
        "--enable-prompt-tokens-details",
    )


def _model_arguments(model: EdgeModelSettings) -> tuple[str, ...]:
    return (
        f"--model={model.model}",
        f"--served-model-name={model.name}",
        *_template_arguments(model),
        f"--dtype={model.dtype}",
        f"--max-model-len={model.max_model_len}",
        f"--max-num-seqs={model.max_num_seqs}",
        f"--max-num-batched-tokens={model.max_num_batched_tokens}",
        "--scheduling-policy=priority",
        f"--shutdown-timeout={model.drain_timeout_seconds}",
        f"--additional-config={json.dumps(worker_spec(model).additional_config())}",
    )


def _template_arguments(model: EdgeModelSettings) -> tuple[str, ...]:
    own = OwnTemplate.load(model.model, model.chat_template)
    compiled = _compiled_template(model, own)
    if compiled is not None:
        # vLLM prefers Mistral's own tokenizer where there is one, and that reads no template.
        return (f"--chat-template={own.served(compiled)}", "--tokenizer-mode=hf")
    if own.refuses_system:
        return (f"--chat-template={own.served()}",)
    # Without a file vLLM reads the same from the tokenizer's settings.
    return (f"--chat-template={model.template_path}",) if model.template_path else ()


def _tool_arguments(model: EdgeModelSettings) -> tuple[str, ...]:
    if model.tool_call_parser is None:
        return ()
    return (
        "--enable-auto-tool-choice",
        f"--tool-call-parser={model.tool_call_parser}",
        # Else a call's arguments follow their schema only where a client says strict, and a small
        # model's would not.
        "--tool-strict-level=parameter",
    )


def _recipe_arguments(model: EdgeModelSettings) -> tuple[str, ...]:
    if model.pool_file is None:
        return ()
    # As many slots as requests in a batch: vLLM's limit of adapters per step never binds. Where
    # recipes are materialised `workers.serve` puts in its own numbers.
    return ("--enable-lora", f"--max-loras={model.max_num_seqs}", "--max-lora-rank=8")


def _cpu_arguments(model: EdgeModelSettings) -> tuple[str, ...]:
    arguments = ("--enforce-eager", f"--kv-cache-memory-bytes={int(model.kv_cache_gib * 2**30)}")
    if any("parallel-size" in each for each in model.engine_args):
        return arguments
    # vLLM gives a CPU model a process of its own so as to bind its threads to cores. Ours are not
    # bound, and that process looks for work with a whole core for a second after each.
    return (*arguments, f"--distributed-executor-backend={_IN_THE_ENGINE}")


def _cpu_environment() -> dict[str, str]:
    # vLLM would bind itself to cores of its own choice; the machine is shared with the gateway.
    inherited = child_environment()
    threads = str(len(os.sched_getaffinity(0)))
    return {
        # vLLM compiles one sampling helper even in eager mode: 20 s at the first request for
        # log-probabilities, and a dead engine where there is no C++ compiler.
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": inherited.get("OMP_NUM_THREADS", threads),
        # Threads that spin at barriers take the gateway's cores, and wait for one another's.
        "OMP_WAIT_POLICY": inherited.get("OMP_WAIT_POLICY", "passive"),
        # oneDNN keeps what it made for 1,024 shapes, and every length of a batch is one: memory
        # would grow by hundreds of megabytes over the first thousands of requests.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": inherited.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256"),
    }


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
