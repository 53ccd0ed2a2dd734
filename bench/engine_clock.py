"""vLLM engines inside this process, whose clock is the CPU time of their own steps.

Requests come by that clock, and it stands still while the process waits for a core: of other work
on the machine only what it does to caches and memory counts, and an idle engine skips to the next
request. The engines have one thread. What stands before an engine in production, HTTP and
tokenizing, is left out.
"""

import itertools
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from bench.arrivals import Arrival
from bench.limits import Limits
from bench.load import Reply
from bench.model import BenchModel
from loragen.recipe import Recipe
from workers.ids import RecipeIds
from workers.plugin import register
from workers.spec import WorkerSpec

_FIRST_TOKEN_ID: Final = 10
_TOKEN_IDS: Final = 200
"""Prompts are drawn from so many, of the small checkpoint's vocabulary."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """What an engine knows its tenants by: their prompts, in tokens, or their recipes."""

    prompts: Sequence[list[int]] = ()
    recipes: Sequence[Recipe] = ()


@dataclass(slots=True)
class _Open:
    """A request under way."""

    at_seconds: float
    lease: ExitStack
    first_token_seconds: float | None = None


@dataclass(slots=True)
class _Trial:
    """What one engine has under way and has answered, by its clock."""

    limits: Limits
    seconds: float = 0.0
    open: dict[str, _Open] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)

    @property
    def missed(self) -> int:
        """Answers that came late, and requests whose first token is late already."""
        latest = self.seconds - self.limits.first_token_seconds
        overdue = sum(
            each.first_token_seconds is None and each.at_seconds < latest
            for each in self.open.values()
        )
        return overdue + sum(not self.limits.meets(reply) for reply in self.replies)


class ClockedEngine:
    """A bare engine whose tenants have prompts, or one with a pool whose tenants have recipes."""

    def __init__(
        self, model: BenchModel, tenants: Tenants, *, kv_tokens: int, batched_tokens: int
    ) -> None:
        register()
        torch.set_num_threads(1)  # vLLM lets nobody do that later
        pool = WorkerSpec("bench", "", model.generator / "pool.safetensors", model.pool_id)
        options: dict[str, Any] = (
            {
                "enable_lora": True,
                "max_loras": 64,
                "max_lora_rank": 8,
                "additional_config": pool.additional_config(),
            }
            if tenants.recipes
            else {}
        )
        self._engine = LLM(
            str(model.edge),
            dtype="bfloat16",
            max_num_seqs=64,
            max_model_len=2_560,
            max_num_batched_tokens=batched_tokens,
            enforce_eager=True,
            async_scheduling=False,
            kv_cache_memory_bytes=kv_tokens * model.size.kv_bytes_per_token,
            **options,
        ).llm_engine
        self._names = map(str, itertools.count())
        self._ids = RecipeIds()
        self._drawn = np.random.default_rng(0)
        self._tenants = tenants

    def offer(
        self, requests: Sequence[tuple[Arrival, int]], limits: Limits, *, allowed: int
    ) -> tuple[list[Reply], int]:
        """Answer requests of tenants as they come; end early once more are late than may be."""
        trial = _Trial(limits)
        waiting = deque(requests)
        while (waiting or trial.open) and trial.missed <= allowed:
            if not trial.open:
                trial.seconds = max(trial.seconds, waiting[0][0].at_seconds)
            started = time.process_time()
            while waiting and waiting[0][0].at_seconds <= trial.seconds:
                self._add(trial, *waiting.popleft())
            outputs = self._engine.step()
            trial.seconds += time.process_time() - started
            for output in outputs:
                self._note(trial, output)
        missed = trial.missed
        self._abort(trial)
        return trial.replies, missed

    def _add(self, trial: _Trial, arrival: Arrival, tenant: int) -> None:
        name, lease = next(self._names), ExitStack()
        lora_request = None
        if self._tenants.recipes:
            recipe = self._tenants.recipes[tenant]
            number = lease.enter_context(self._ids.lease(recipe.id))
            # As workers.intake does.
            lora_request = LoRARequest(recipe.id, number, recipe.id, base_model_name=recipe.text)
        self._engine.add_request(
            name,
            {"prompt_token_ids": self._context(tenant, arrival.message_tokens)},
            SamplingParams(
                max_tokens=arrival.answer_tokens, temperature=0, ignore_eos=True, detokenize=False
            ),
            lora_request=lora_request,
        )
        trial.open[name] = _Open(arrival.at_seconds, lease)

    def _note(self, trial: _Trial, output: Any) -> None:
        request = trial.open[output.request_id]
        since = trial.seconds - request.at_seconds
        if request.first_token_seconds is None:
            request.first_token_seconds = since
        if not output.finished:
            return
        trial.replies.append(
            Reply(
                first_token_seconds=request.first_token_seconds,
                last_token_seconds=since,
                output_tokens=len(output.outputs[0].token_ids),
                prompt_tokens=len(output.prompt_token_ids),
                cached_tokens=output.num_cached_tokens or 0,
            )
        )
        trial.open.pop(output.request_id).lease.close()

    def _abort(self, trial: _Trial) -> None:
        """Leave the engine idle."""
        self._engine.abort_request(list(trial.open))
        while self._engine.has_unfinished_requests():
            self._engine.step()
        for request in trial.open.values():
            request.lease.close()

    def _context(self, tenant: int, message_tokens: int) -> list[int]:
        message = random_tokens(self._drawn, message_tokens)
        return [*self._tenants.prompts[tenant], *message] if self._tenants.prompts else message


def random_tokens(drawn: np.random.Generator, count: int) -> list[int]:
    """Return so many tokens of a text that says nothing."""
    ids = drawn.integers(_FIRST_TOKEN_ID, _FIRST_TOKEN_ID + _TOKEN_IDS, size=count)
    return [int(each) for each in ids]
