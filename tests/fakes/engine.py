"""A vLLM engine that mixes recipes, inside the test process."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from config.edge_model import Backend
from loragen.recipe import Recipe
from tests.fakes.tiny import TinyEdge
from workers.materialise import slot_arguments
from workers.plugin import register
from workers.spec import WorkerSpec

TOKENS = 16
STEP_TOKENS = 512

Scores = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Answer:
    """Greedy tokens [n] and log-probabilities [n, vocabulary]."""

    tokens: list[int]
    scores: Scores


@dataclass(frozen=True)
class Engine:
    """A vLLM engine with our manager in it."""

    llm: Any

    def generate(
        self, prompts: Sequence[list[int]], recipes: Sequence[Recipe | None]
    ) -> list[Answer]:
        """Answer all prompts in one batch."""
        from vllm import SamplingParams

        params = SamplingParams(max_tokens=TOKENS, temperature=0, logprobs=-1, ignore_eos=True)
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            params,
            lora_request=[lora_request(recipe) for recipe in recipes],
            use_tqdm=False,
        )
        return [
            Answer(list(output.outputs[0].token_ids), _scores(output.outputs[0].logprobs))
            for output in outputs
        ]


@contextmanager
def running_engine(
    tiny: TinyEdge, dtype: str, *, slots: int | None = None, **options: Any
) -> Iterator[Engine]:
    """Run an engine in this process; leave vLLM and the environment as they were.

    Args:
        slots: materialise recipes in so many of vLLM's slots, instead of mixing gates.
        options: vLLM's.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_PLUGINS", "")  # registered below: vLLM loads plugins once per process
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("torch._dynamo.config.disable", True)
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.v1.worker import cpu_worker
        from vllm.v1.worker import lora_model_runner_mixin as mixin

        # Another process would look at each model's class: it costs a start of vLLM.
        registry = "vllm.model_executor.models.registry._run_in_subprocess"
        patch.setattr(registry, lambda look: look())
        patch.setattr(cpu_worker, "CPUModelRunner", cpu_worker.CPUModelRunner)
        patch.setattr(mixin, "LRUCacheWorkerLoRAManager", mixin.LRUCacheWorkerLoRAManager)
        register()
        pool = tiny.generator / "pool.safetensors"
        backend: Backend = "gate" if slots is None else "materialise"
        spec = WorkerSpec("tiny", tiny.pool.spec.template_hash, pool, tiny.pool.id, backend)
        if slots is not None:
            options |= slot_arguments(tiny.pool.spec, slots=slots)
        arguments = {
            "enable_lora": True,
            "max_loras": 16,
            "max_num_seqs": 16,
            "max_lora_rank": 8,
            "max_model_len": 512,
            "max_num_batched_tokens": STEP_TOKENS,
            "max_logprobs": -1,
            "enforce_eager": True,
            "kv_cache_memory_bytes": 1 << 26,
            "additional_config": spec.additional_config(),
        }
        llm = LLM(str(tiny.model), dtype=dtype, **{**arguments, **options})
        try:
            yield Engine(llm)
        finally:
            del llm
            gc.collect()
            cleanup_dist_env_and_memory()


def identical(left: Sequence[Answer], right: Sequence[Answer]) -> bool:
    """Whether the answers are the same to the last bit."""
    return all(
        a.tokens == b.tokens and np.array_equal(a.scores, b.scores)
        for a, b in zip(left, right, strict=True)
    )


def lora_request(recipe: Recipe | None) -> Any:
    """Return what brings a recipe to the engine."""
    from vllm.lora.request import LoRARequest

    if recipe is None:
        return None
    number = int(recipe.id[:6], 16) + 1
    return LoRARequest(recipe.id, number, recipe.id, base_model_name=recipe.text)


def _scores(steps: Sequence[dict[int, Any]]) -> Scores:
    scores = np.empty((len(steps), len(steps[0])), dtype=np.float32)
    for row, step in zip(scores, steps, strict=True):
        for token, entry in step.items():
            row[token] = entry.logprob
    return scores
