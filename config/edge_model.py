"""One edge model's part of the settings."""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import AnyHttpUrl, Field, model_validator

from config.section import Section
from loragen.errors import ConfigError
from loragen.gate import REFINE_FROM, Gate

POOL_FILE: Final = "pool.safetensors"
"""The pool in a generator's folder."""

Backend = Literal["auto", "gate", "materialise"]
"""How workers mix recipes; `auto` is decided when one starts."""


class EdgeModelSettings(Section):
    """One small model that answers, with its workers and its generator or pool, if it has one."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$",
        description="The `model` clients ask for. No ':'.",
    )
    model: Path = Field(description="Folder of the Hugging Face model. Hub ids are not downloaded.")
    chat_template: Path | None = Field(
        None,
        description="The model's chat template, a file; default: its own, from its "
        "chat_template.jinja or tokenizer_config.json.",
    )
    compiled_template: str | None = Field(
        None,
        description="What compiled mode prints: a family (llama-2, llama-3, qwen2.5, qwen3, gemma, "
        "mistral-v1, mistral-v3, mistral-tekken) or a file; default: the model folder's "
        "compiled_template.jinja, else the family that its chat template turns out to be of.",
    )
    tool_call_parser: str | None = Field(
        None,
        description="vLLM's parser of this model's tool calls, such as hermes. Without one, "
        "requests with tools are refused.",
    )
    generator: Path | None = Field(
        None,
        description="Generator checkpoint folder. Without one, and without a pool, the model "
        "serves prompt mode only.",
    )
    next_generator: Path | None = Field(
        None,
        description="The checkpoint that `generator` is being upgraded to: the router service "
        "compiles for both, and `loragen up` starts as many workers of its pool besides.",
    )
    pool: Path | None = Field(
        None,
        description="A pool without a generator, a file that `loragen bootstrap-pool` writes: "
        "tasks start in prompt mode and are compiled by refining.",
    )
    max_doubt: float | None = Field(
        None,
        gt=0,
        description="How unsure the model may be of its own answers under a prompt, in nats per "
        "token, for a recipe of it to serve; beyond that the prompt stays in context, because a "
        "recipe recovers what the model does, right or wrong. It depends on the model: see "
        "operations. Default: not asked.",
    )
    min_agreement: float = Field(
        0.0,
        ge=0,
        le=1,
        description="The least share of measured answers that are the prompt's word for word for "
        "a recipe to serve, beside the task's `min_fidelity`. For models that answer in a few "
        "words; long answers differ somewhere.",
    )
    refine_below_agreement: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A new recipe whose share of such answers is less is refined by itself although"
        " it serves, and the better of the two serves from then on. Of use above `min_agreement`.",
    )
    refine_from_fidelity: float = Field(
        REFINE_FROM,
        ge=0,
        le=1,
        description="Least fidelity of a new recipe, on messages that the model made up, for it to "
        "be refined by itself: a prompt of whose effect it recovers less was misread by the "
        "generator, and is perhaps not followed by the model either. At 0 even those are refined "
        "that do harm.",
    )
    trust_from_fidelity: float | None = Field(
        None,
        gt=0,
        le=1.2,
        description="Fidelity from which on a recipe serves whatever the model's doubt: the "
        "generator recovers so much of prompts of kinds that it was trained on. Default: doubt "
        "always counts.",
    )
    force_prompt: bool = Field(
        False, description="Serve this model's tasks in prompt mode although they have recipes."
    )
    worker_urls: tuple[AnyHttpUrl, ...] = Field(
        (),
        description="Where the gateway finds this model's workers; default: this machine's port.",
    )
    worker_service: AnyHttpUrl | None = Field(
        None,
        description="In place of worker_urls: a URL whose host name has the IP address of every "
        "worker of this model, such as a headless Kubernetes Service; looked up again and again.",
    )
    next_worker_service: AnyHttpUrl | None = Field(
        None,
        description="During an upgrade, the same for the workers of the next generator's pool.",
    )
    port: int = Field(8001, ge=1, le=65_535, description="Port a worker of this model listens on.")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Workers that `loragen up` starts, on this port and those after it; with a "
        "next_generator, as many of its pool on the ports behind.",
    )
    max_outstanding: int | None = Field(
        None,
        ge=1,
        description="Requests that one gateway has at one worker; default: twice max_num_seqs, one "
        "batch that runs and one to fill its gaps.",
    )
    max_outstanding_of_tenant: int | None = Field(
        None,
        ge=1,
        description="Requests of one tenant that one gateway has at one worker; default: as many "
        "as of all. Where it is a few less than max_num_seqs over all gateways, no tenant fills a "
        "batch alone, and another's next request begins in the next step.",
    )
    max_waiting: int = Field(
        256,
        ge=0,
        description="Requests that wait in one gateway while all workers of this model have that "
        "many, in turns by tenant; beyond them the tenant with most in line gets 429.",
    )
    max_wait_seconds: float = Field(
        10.0, gt=0, description="How long a request waits for a worker before it gets 429."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Compute type.")
    max_model_len: int = Field(1_024, ge=16, description="Context in tokens, prompt and answer.")
    max_num_seqs: int = Field(
        64, ge=1, le=4_096, description="Requests in one batch, and recipes held by the engine."
    )
    backend: Backend = Field(
        "auto",
        description="How workers mix recipes: `gate` inside the batch, of any number of tasks at "
        "once; `materialise` as adapters in vLLM's own slots, for models whose layers gate does "
        "not cover; `auto` is gate where that covers the model.",
    )
    adapter_slots: int = Field(
        8,
        ge=1,
        description="With the materialise backend, the recipes that a worker holds as adapters: "
        "requests of more tasks at once wait for each other. Each takes memory.",
    )
    max_num_batched_tokens: int = Field(
        4_096, ge=16, description="Tokens in one engine step; sizes the per-step gate buffers."
    )
    kv_cache_gib: float = Field(1.0, gt=0, description="Memory for the KV cache on CPU, in GiB.")
    drain_timeout_seconds: int = Field(
        20,
        ge=0,
        description="Told to end, a worker takes nothing new and finishes what it has for this "
        "long.",
    )
    engine_args: tuple[str, ...] = Field((), description="More vLLM server arguments, as they are.")

    @property
    def bars(self) -> Gate:
        """What this model asks of every recipe, beside its task's least fidelity."""
        return Gate(
            max_doubt=self.max_doubt,
            min_agreement=self.min_agreement,
            refine_below_agreement=self.refine_below_agreement,
            refine_from_fidelity=self.refine_from_fidelity,
            trust_from_fidelity=self.trust_from_fidelity,
        )

    @property
    def local_workers(self) -> dict[str, int]:
        """The workers on one machine, by name: the edge model's, counted from the second on."""
        names = self._counted(self.name) + list(self.next_workers)
        return {name: self.port + index for index, name in enumerate(names)}

    @property
    def next_workers(self) -> tuple[str, ...]:
        """Those of them that hold the pool of the next generator."""
        return () if self.next_generator is None else tuple(self._counted(f"{self.name}-next"))

    def upgraded(self) -> Self:
        """Return the edge model as it is after the upgrade.

        Raises:
            ConfigError: there is no next generator.
        """
        if self.next_generator is None:
            raise ConfigError(f"edge model {self.name!r} has no next_generator")
        return self.model_copy(update={"generator": self.next_generator, "next_generator": None})

    def _counted(self, name: str) -> list[str]:
        return [name, *(f"{name}-{count}" for count in range(2, self.workers + 1))]

    @property
    def pool_file(self) -> Path | None:
        """The pool whose recipes the workers mix: the generator's, or the one of its own."""
        return self.pool if self.generator is None else self.generator / POOL_FILE

    @property
    def template_path(self) -> Path | None:
        """The file of the chat template; None where it stands in tokenizer_config.json."""
        own = self.model / "chat_template.jinja"
        return self.chat_template or (own if own.is_file() else None)

    @model_validator(mode="after")
    def _one_pool(self) -> Self:
        if self.generator is not None and self.pool is not None:
            raise ValueError("generator or pool, not both: a generator brings its own pool")
        if self.next_generator is not None and self.generator is None:
            raise ValueError("next_generator: there is no generator to upgrade")
        if self.next_worker_service is not None and self.worker_service is None:
            raise ValueError("next_worker_service goes with worker_service")
        return self

    @model_validator(mode="after")
    def _bars_in_order(self) -> Self:
        if 0 < self.refine_below_agreement <= self.min_agreement:
            raise ValueError(
                "refine_below_agreement: what agrees less often than min_agreement is refined "
                "anyway; name a higher share, or leave it out"
            )
        return self
