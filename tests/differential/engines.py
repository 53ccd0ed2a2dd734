"""Engines: the ways a worker is set up, and what must happen in each for its run to count."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from config.load import load_settings
from config.ports import free_port
from tests.differential.evidence import Event
from tests.fakes.tiny import LAYERS, TinyEdge
from tests.fakes.worker_process import SECRET, Worker, start_process, start_worker
from workers.launch import Launch

MODEL: Final = "tiny"
MAX_MODEL_LEN: Final = 256
BLOCK_BYTES: Final = LAYERS * 32 * 2 * 32 * 4
"""Of the KV cache for 32 tokens: layers, tokens, keys and values, width of the one head, float."""

COMPACT_JSON: Final = (
    '--structured-outputs-config={"backend": "xgrammar", "disable_any_whitespace": true}'
)
"""For the worker of a trial: grammars then say all that may follow."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to set a worker up."""

    name: str
    must_happen: frozenset[Event]
    blocks: int
    """Of 32 tokens in the KV cache; the longest request takes 8."""
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 1_024
    engine_args: tuple[str, ...] = ()
    is_compiled: bool = False

    def settings(self, tiny: TinyEdge) -> dict[str, Any]:
        """Return the edge model's section of a configuration file."""
        return {
            "name": MODEL,
            "model": str(tiny.model),
            "generator": str(tiny.generator),
            "max_model_len": MAX_MODEL_LEN,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "kv_cache_gib": self.blocks * BLOCK_BYTES / 2**30,
            "engine_args": [COMPACT_JSON, *self.engine_args],
        }


ENGINES: Final = (
    Engine("roomy", frozenset({"cached_tokens", "aborts"}), blocks=512, max_num_seqs=32),
    Engine("starved", frozenset({"preemptions", "cached_tokens", "aborts"}), blocks=12),
    Engine(
        "chunked",
        frozenset({"preemptions", "chunked_prompts", "aborts"}),
        blocks=14,
        max_num_batched_tokens=24,
        engine_args=("--no-enable-prefix-caching",),
    ),
    Engine(
        "compiled",
        frozenset({"preemptions", "cached_tokens", "aborts", "compiled_graphs"}),
        blocks=14,
        max_num_batched_tokens=64,
        engine_args=("--no-enforce-eager",),
        is_compiled=True,
    ),
)


@contextlib.contextmanager
def running(engine: Engine, tiny: TinyEdge, folder: Path) -> Iterator[Worker]:
    """Run a worker set up in this way until the block ends."""
    config = folder / f"{engine.name}.yaml"
    config.write_text(yaml.safe_dump({"edge_models": [engine.settings(tiny)]}))
    worker = _start_compiled(config) if engine.is_compiled else start_worker(MODEL, config)
    try:
        worker.wait_ready()
        yield worker
    finally:
        worker.end()


def _start_compiled(config: Path) -> Worker:
    settings, port = load_settings([config]), free_port()
    launch = Launch.plan(settings, settings.edge_model(MODEL), host="127.0.0.1", port=port)
    environment = {
        **launch.environment,
        "TORCH_COMPILE_DISABLE": "0",
        "VLLM_API_KEY": SECRET,
        "VLLM_CACHE_ROOT": str(config.with_name("cache")),  # else a graph made before is loaded
    }
    return start_process(
        "tests.differential.compiled_worker",
        launch.arguments,
        name=MODEL,
        port=port,
        log=config.with_name("compiled.log"),
        **environment,
    )
