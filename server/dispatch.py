"""Dispatch: choose a worker of an edge model and send.

Any worker that holds the pool of its recipe serves any task, so there is no affinity to keep (see
`server.crew` for the choice). One that holds another pool by now is asked what it holds.
Another worker is tried only before the first byte of an answer, when the chosen one turns out to
be gone; once only if the request had reached it, lest a request that kills its worker goes round
and kills them all. For the same reason a 500 is an answer, not a lost worker.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import httpx

from loragen.errors import DeadlineExceeded, EdgeModelNotFound, RecipeMismatch, WorkerUnavailable
from loragen.recipe import Recipe
from loragen.tools import Tool
from loragen.wire import (
    COMPILED_SWITCH,
    MAX_HEADER_CHARS,
    RECIPE_FIELD,
    RECIPE_HEADER,
    REQUEST_ID_HEADER,
    WorkerBackend,
    WorkerInfo,
)
from server.answer import refusal
from server.begun_stream import begun
from server.crew import Crew
from server.health import try_info
from server.worker import Worker

_GONE: Final = frozenset({502, 503, 504})
_TOKENIZE: Final = "/tokenize"
"""Answered beside the engine: it needs no place in a batch, and waits for none."""
_MOST_DROPS: Final = 2


class Loss(Enum):
    """How a worker failed to begin an answer."""

    UNREACHED = "the request never got to it"
    DROPPED = "it had the request"
    REFUSED = "it holds another pool than was known"


@dataclass(slots=True)
class Trail:
    """What one request met so far, over all its sends: with a recipe, another one, or none."""

    tenant: str = ""
    """Whose it is; tenants have a worker in turns."""
    drops: int = 0
    """Workers lost with it."""
    is_at_worker: bool = False
    """Whether one that lives may have begun on it, as none has while it waits in line."""


class Dispatcher:
    """Sends requests to the workers of every edge model."""

    def __init__(
        self, crews: Mapping[str, Crew], client: httpx.AsyncClient, *, patience_seconds: float
    ) -> None:
        """Take the workers and a client with their key and the longest silence of an answer.

        After `patience_seconds` without a first token the client is told that its stream begins,
        and no other worker is tried any more.
        """
        self._crews = crews
        self._client = client
        self._patience = patience_seconds

    @property
    def edge_models(self) -> tuple[str, ...]:
        """Names of the configured edge models."""
        return tuple(self._crews)

    def missing(self) -> list[str]:
        """Return the edge models that have no healthy worker."""
        return [model for model, crew in self._crews.items() if not crew.healthy]

    def backends(self) -> dict[str, list[WorkerBackend]]:
        """Return how the workers of every edge model mix recipes."""
        return {model: sorted(crew.backends) for model, crew in self._crews.items()}

    def info(self, model: str) -> WorkerInfo:
        """Return what a healthy worker of the model serves.

        Raises:
            EdgeModelNotFound: no such model is configured.
            WorkerUnavailable: no worker of it is healthy.
        """
        info = self._crew(model).any().info
        assert info is not None
        return info

    async def count_tokens(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Tool] = (),
        is_compiled: bool = False,
    ) -> int:
        """Return the length in tokens of messages as the workers of a model render them.

        With `is_compiled` as in compiled mode, where they know it.

        Raises:
            InvalidRequest: the model's template refuses the messages.
            EdgeModelNotFound, WorkerUnavailable, DeadlineExceeded: see `send`.
        """
        body: dict[str, Any] = {"model": model, "messages": list(messages)}
        if is_compiled and self.info(model).pool_id is not None:
            body["chat_template_kwargs"] = {COMPILED_SWITCH: True}
        if tools:
            body["tools"] = [tool.body() for tool in tools]
        async with self.send(model, _TOKENIZE, body) as response:
            if response.status_code != 200:
                raise refusal(response)
            try:
                return int(response.json()["count"])
            except (ValueError, KeyError, TypeError) as error:
                raise WorkerUnavailable("a worker could not count tokens") from error

    @asynccontextmanager
    async def send(
        self,
        model: str,
        path: str,
        body: Mapping[str, Any],
        *,
        recipe: Recipe | None = None,
        trail: Trail | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request to a worker and yield its answer, of that id, as soon as it begins.

        Raises:
            EdgeModelNotFound: no such model is configured.
            WorkerUnavailable: no worker of it answers.
            RecipeMismatch: some answer, but none that takes the recipe.
            QueueFull: all of them are busy, and enough requests wait already.
            DeadlineExceeded: a worker was silent for too long.
        """
        crew = self._crew(model)
        trail = trail or Trail()
        tried: set[str] = set()
        while trail.drops < _MOST_DROPS:
            trail.is_at_worker = False
            async with _place(crew, path, tried, recipe, tenant=trail.tenant) as worker:
                tried.add(worker.url)
                trail.is_at_worker = True
                response = await self._try(crew, worker, path, body, recipe, request_id)
                if not isinstance(response, httpx.Response):
                    trail.drops += response is Loss.DROPPED
                    continue
                try:
                    if path == _TOKENIZE or response.status_code != 200:
                        await response.aread()
                    yield response
                except httpx.ReadTimeout as error:
                    raise DeadlineExceeded("the worker took too long to answer") from error
                except httpx.HTTPError as error:
                    crew.lose(worker, type(error).__name__)
                    raise WorkerUnavailable("the worker was lost while answering") from error
                finally:
                    await response.aclose()
                return
        raise WorkerUnavailable("two workers were lost with this request", retry_after=1.0)

    async def _try(
        self,
        crew: Crew,
        worker: Worker,
        path: str,
        body: Mapping[str, Any],
        recipe: Recipe | None,
        request_id: str | None,
    ) -> httpx.Response | Loss:
        headers = {} if request_id is None else {REQUEST_ID_HEADER: request_id}
        text = None if recipe is None else recipe.text
        if text is not None and len(text) <= MAX_HEADER_CHARS:
            headers[RECIPE_HEADER] = text
        elif text is not None:
            body = {**body, RECIPE_FIELD: text}
        request = self._client.build_request("POST", worker.url + path, json=body, headers=headers)
        try:
            response = await self._client.send(request, stream=True)
            if response.status_code == 200 and body.get("stream"):
                response = await begun(response, seconds=self._patience)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            crew.lose(worker, type(error).__name__)
            return Loss.UNREACHED
        except httpx.TimeoutException as error:
            raise DeadlineExceeded("the worker took too long to answer") from error
        except httpx.HTTPError as error:
            crew.lose(worker, type(error).__name__)
            return Loss.DROPPED
        if response.status_code in _GONE:
            await response.aclose()
            crew.lose(worker, f"status {response.status_code}")
            return Loss.DROPPED
        if recipe is not None and response.status_code == RecipeMismatch.status:
            await response.aclose()
            await self._learn(crew, worker)
            return Loss.REFUSED
        return response

    async def _learn(self, crew: Crew, worker: Worker) -> None:
        """Ask a worker what it holds."""
        info = await try_info(self._client, worker.url)
        if info is None or info.edge_model != crew.model:
            crew.lose(worker, "it does not say what pool of this model it holds")
        elif worker.listed:
            crew.admit(worker, info)

    def _crew(self, model: str) -> Crew:
        crew = self._crews.get(model)
        if crew is None:
            raise EdgeModelNotFound(f"no model {model!r} is served", param="model")
        return crew


def _place(
    crew: Crew, path: str, tried: set[str], recipe: Recipe | None, *, tenant: str
) -> AbstractAsyncContextManager[Worker]:
    if path == _TOKENIZE:
        return nullcontext(crew.any(tried))
    pool_id = None if recipe is None else recipe.pool_id
    return crew.worker(tried, pool_id=pool_id, tenant=tenant)
