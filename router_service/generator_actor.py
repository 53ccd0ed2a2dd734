"""Generator actor: one process that holds the generators of one cloud model and compiles batches.

A plain class: `router_service.app` turns it into a Ray Serve deployment, tests use it as it is.
Work runs in a thread, so the process still answers health checks meanwhile. One prompt's failure
is that prompt's alone: a batch returns an error in its place.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from loragen.errors import EdgeModelNotFound, LoragenError, PromptTooLong, RecipeMismatch
from loragen.recipe import Level, Recipe
from loragen.tools import compile_text
from loragen.wire import CompileReply, CompileRequest, Head

logger = logging.getLogger(__name__)


class GeneratorHead(Protocol):
    """What a generator's recipes are for, and its own id."""

    @property
    def generator_id(self) -> str: ...  # noqa: D102 - named by the class

    @property
    def pool_id(self) -> str: ...  # noqa: D102

    @property
    def template_hash(self) -> str: ...  # noqa: D102

    @property
    def level(self) -> Level: ...  # noqa: D102


class Compiler(Protocol):
    """A loaded generator, as `loragen.method.generator.Generator`."""

    max_prompt_tokens: int

    @property
    def head(self) -> GeneratorHead:
        """What its recipes are for."""

    def prompt_tokens(self, prompt: str) -> int:
        """Return how many tokens of `max_prompt_tokens` a prompt takes."""

    def compile(self, prompts: Sequence[str]) -> list[Recipe]:
        """Return one recipe per prompt.

        Raises:
            PromptTooLong: a prompt exceeds `max_prompt_tokens`.
        """


Load = Callable[[Path], Compiler]
Outcome = CompileReply | LoragenError


class GeneratorActor:
    """Compiles prompts for the edge models whose generators share one cloud model."""

    def __init__(self, folders: Mapping[str, Path], load: Load) -> None:
        started = time.monotonic()
        self._generators = {edge_model: load(folder) for edge_model, folder in folders.items()}
        logger.info(
            "generators loaded",
            extra={
                "edge_models": list(folders),
                "seconds": round(time.monotonic() - started, 2),
            },
        )

    async def heads(self) -> tuple[Head, ...]:
        """Return what this actor compiles for."""
        return tuple(
            _head(edge_model, generator) for edge_model, generator in self._generators.items()
        )

    async def compile_batch(self, requests: Sequence[CompileRequest]) -> list[Outcome]:
        """Compile each request, in order; what cannot be compiled is its error."""
        return await asyncio.to_thread(self._compile_all, requests)

    def _compile_all(self, requests: Sequence[CompileRequest]) -> list[Outcome]:
        started = time.monotonic()
        outcomes: dict[int, Outcome] = {}
        heads = [(request.edge_model, request.pool_id) for request in requests]
        for head in dict.fromkeys(heads):
            places = [i for i, each in enumerate(heads) if each == head]
            replies = self._compile_head(*head, [requests[i] for i in places])
            outcomes.update(zip(places, replies, strict=True))
        logger.info(
            "prompts compiled",
            extra={"prompts": len(requests), "seconds": round(time.monotonic() - started, 4)},
        )
        return [outcomes[i] for i in range(len(requests))]

    def _compile_head(
        self, edge_model: str, pool_id: str | None, requests: list[CompileRequest]
    ) -> list[Outcome]:
        generator = self._generators.get(edge_model)
        if generator is None:
            missing = EdgeModelNotFound(
                f"no generator compiles for the edge model {edge_model!r}", param="edge_model"
            )
            return [missing] * len(requests)
        if pool_id not in (None, generator.head.pool_id):
            return [RecipeMismatch("the generator is of another pool")] * len(requests)
        return [_compiled(generator, request) for request in requests]


def _compiled(generator: Compiler, request: CompileRequest) -> Outcome:
    started = time.monotonic()
    try:
        prompt = _text(request)
        too_long = _too_long(generator, prompt)
        if too_long is not None:
            return too_long
        (recipe,) = generator.compile([prompt])
        return _reply(recipe, request, generator=generator, seconds=time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - one prompt's failure is its own, whatever it is
        # Neither the traceback nor the text: a tokenizer's error may quote the prompt.
        logger.error("compiling failed", extra={"error": type(error).__name__})
        return LoragenError("the generator failed")


def _text(request: CompileRequest) -> str:
    return compile_text(request.prompt, request.tools)


def _too_long(generator: Compiler, prompt: str) -> PromptTooLong | None:
    tokens = generator.prompt_tokens(prompt)
    if tokens <= generator.max_prompt_tokens:
        return None
    return PromptTooLong(
        f"the prompt has {tokens} tokens, the generator reads at most "
        f"{generator.max_prompt_tokens}",
        param="prompt",
    )


def _reply(
    recipe: Recipe, request: CompileRequest, *, generator: Compiler, seconds: float
) -> CompileReply:
    head = generator.head
    return CompileReply(
        request_id=request.request_id,
        recipe=recipe.text,
        recipe_id=recipe.id,
        pool_id=recipe.pool_id,
        generator_id=head.generator_id,
        level=1 if recipe.level is Level.DENSE else 0,
        template_hash=head.template_hash,
        compile_seconds=seconds,
    )


def _head(edge_model: str, generator: Compiler) -> Head:
    head = generator.head
    return Head(
        edge_model=edge_model,
        pool_id=head.pool_id,
        generator_id=head.generator_id,
        level=1 if head.level is Level.DENSE else 0,
        template_hash=head.template_hash,
        max_prompt_tokens=generator.max_prompt_tokens,
    )
