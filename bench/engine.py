"""A vLLM engine inside this process, one decode step at a time.

No HTTP and no second process stand between two clock readings, so that two engines can take turns
step by step: what slows the machine down slows both. The clock is the process's CPU time, which on
a shared machine is nearer the truth than the wall's, as long as the engines have one thread.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from bench.model import BenchModel
from loragen.recipe import Recipe
from workers.ids import RecipeIds
from workers.plugin import register
from workers.spec import WorkerSpec

PROMPT: Final = (5, 6)
"""Short, so that a wave is nearly all decode; equal, as speed does not depend on the words."""

Step = Callable[[], float]
"""Runs one step of the engine; returns its seconds."""


class DecodeEngine:
    """An engine that answers one batch of requests of equal length at a time."""

    def __init__(self, model: BenchModel, *, batch: int, pool: bool) -> None:
        self._batch = batch
        self._ids = RecipeIds()
        self._names = map(str, itertools.count())
        spec = WorkerSpec("bench", "", model.generator / "pool.safetensors", model.pool_id)
        register()
        options: dict[str, Any] = (
            {
                "enable_lora": True,
                "max_loras": batch,
                "max_lora_rank": 8,
                "additional_config": spec.additional_config(),
            }
            if pool
            else {}
        )
        self._llm = LLM(
            str(model.edge),
            dtype="bfloat16",
            max_num_seqs=batch,
            max_model_len=256,
            max_num_batched_tokens=max(1024, batch * len(PROMPT)),
            enforce_eager=True,
            async_scheduling=False,
            kv_cache_memory_bytes=1 << 28,
            **options,
        )

    @contextmanager
    def wave(self, recipes: Sequence[Recipe | None], *, steps: int) -> Iterator[Step]:
        """Start a request per recipe; yield what runs a step.

        The first step reads the prompts, `steps` further ones decode a token of each request.
        """
        params = SamplingParams(
            max_tokens=steps + 1, temperature=0, ignore_eos=True, detokenize=False
        )
        with ExitStack() as leases:
            for recipe in recipes:
                lora_request = None
                if recipe is not None:
                    number = leases.enter_context(self._ids.lease(recipe.id))
                    lora_request = request_for(recipe, number)
                self._llm.llm_engine.add_request(
                    next(self._names),
                    {"prompt_token_ids": list(PROMPT)},
                    params,
                    lora_request=lora_request,
                )
            yield self._step
            assert not self._llm.llm_engine.has_unfinished_requests()

    def admit(self, recipe: Recipe) -> float:
        """Place a recipe in the engine; return the seconds its critical path lost by it."""
        (manager,) = self._llm.collective_rpc(lambda worker: worker.model_runner.lora_manager)
        with self._ids.lease(recipe.id) as number:
            request = request_for(recipe, number)
            started = time.process_time()
            assert manager.add_adapter(request)
            return time.process_time() - started

    @contextmanager
    def ffn_seconds(self) -> Iterator[list[float]]:
        """Collect how long each FFN takes, call by call."""
        (model,) = self._llm.collective_rpc(lambda worker: worker.model_runner.get_model())
        seconds: list[float] = []
        hooks = []
        for name, module in model.named_modules():
            if name.endswith(".mlp"):
                started: list[float] = []
                hooks += [
                    module.register_forward_pre_hook(
                        lambda *_, started=started: started.append(time.process_time())
                    ),
                    module.register_forward_hook(
                        lambda *_, started=started: seconds.append(
                            time.process_time() - started.pop()
                        )
                    ),
                ]
        try:
            yield seconds
        finally:
            for hook in hooks:
                hook.remove()

    def _step(self) -> float:
        started = time.process_time()
        self._llm.llm_engine.step()
        return time.process_time() - started


def request_for(recipe: Recipe, number: int) -> LoRARequest:
    """Return what a worker's API process hands to the engine (see workers.intake)."""
    return LoRARequest(recipe.id, number, recipe.id, base_model_name=recipe.text)
