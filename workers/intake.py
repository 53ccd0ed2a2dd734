"""Intake: recipe text of one HTTP request -> the LoRARequest that vLLM serves it by.

Name and path are the recipe's digest: both enter the hash of every KV block, so equal recipes
share prefixes, different ones never do, and hashing stays cheap. The bytes travel to the engine
in `base_model_name`, which nothing there reads or hashes.
"""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from vllm.lora.request import LoRARequest

from loragen.errors import RecipeInvalid
from loragen.method.pool import PoolSpec
from loragen.recipe import Recipe
from workers.adapter_line import AdapterLine
from workers.ids import RecipeIds


class RecipeView(dict[str, Any]):
    """Stands in for `OpenAIServingModels.lora_requests`.

    Always empty when iterated, so `/v1/models` and vLLM's scans stay small; a lookup answers with
    the running request's recipe. Only for a model we serve: an unknown one stays a 404.
    """

    def __init__(self, served: frozenset[str]) -> None:
        super().__init__()
        self._served = served
        self._current: ContextVar[Any] = ContextVar("lora_request", default=None)

    @contextmanager
    def use(self, lora_request: Any) -> Iterator[None]:
        """Answer lookups of this request with `lora_request`."""
        token = self._current.set(lora_request)
        try:
            yield
        finally:
            self._current.reset(token)

    def __contains__(self, model: object) -> bool:
        # A request without a model is one to the served model.
        return self._current.get() is not None and (not model or model in self._served)

    def __getitem__(self, model: str) -> Any:
        if model not in self:
            raise KeyError(model)
        return self._current.get()

    def get(self, model: str | None, default: Any = None) -> Any:
        """Return the running request's recipe, or `default`."""
        return self._current.get() if model in self else default


@dataclass(frozen=True, slots=True)
class RecipeIntake:
    """Validates recipes against the pool and lends them a number."""

    pool_id: str
    pool: PoolSpec
    ids: RecipeIds
    view: RecipeView
    line: AdapterLine | None = None
    """Where recipes are adapters, and need slots."""

    @contextmanager
    def admit(self, text: str) -> Iterator[Any]:
        """Serve the enclosed request with the recipe in `text` (base64url).

        Raises:
            RecipeInvalid: not a recipe, or impossible for this pool.
            RecipeMismatch: compiled for another pool.
        """
        recipe = Recipe.from_text(text)
        recipe.require_pool(
            self.pool_id,
            layers=self.pool.layers,
            linears=len(self.pool.linears),
            experts=self.pool.experts,
        )
        with self.ids.lease(recipe.id) as number:
            lora_request = LoRARequest(
                lora_name=recipe.id,
                lora_int_id=number,
                lora_path=recipe.id,
                base_model_name=text,
            )
            with self.view.use(lora_request):
                yield lora_request

    def turn(self, lora_request: Any) -> AbstractAsyncContextManager[None] | None:
        """Wait until the engine can serve a recipe, and let it for the length of the block."""
        return None if self.line is None else self.line.turn(lora_request.lora_name)


class NoIntake:
    """Refuses recipes: the edge model has no pool."""

    @contextmanager
    def admit(self, text: str) -> Iterator[Any]:
        """Refuse.

        Raises:
            RecipeInvalid: always.
        """
        raise RecipeInvalid("this worker's edge model has no pool, so it mixes no recipes")
        yield

    def turn(self, lora_request: Any) -> None:
        """Wait for nothing: no recipe gets here."""
