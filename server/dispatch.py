"""Dispatch: choose a worker of an edge model and send.

The fewer outstanding of two random healthy workers. Any worker serves any task, so there is no
affinity to keep. Another worker is tried only before the first byte of an answer, when the chosen
one turns out to be gone.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import ValidationError

from loragen import metrics
from loragen.errors import DeadlineExceeded, EdgeModelNotFound, WorkerUnavailable
from loragen.wire import MAX_HEADER_CHARS, RECIPE_FIELD, RECIPE_HEADER, WorkerInfo

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """One worker as this gateway sees it; `info` is None while it is not healthy."""

    url: str
    outstanding: int = 0
    info: WorkerInfo | None = None

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a request at this worker while it is there."""
        gauge = metrics.WORKER_REQUESTS_INFLIGHT.labels(self.url)
        self.outstanding += 1
        gauge.inc()
        try:
            yield
        finally:
            self.outstanding -= 1
            gauge.dec()


class Dispatcher:
    """Sends requests to the workers of every edge model and watches their health."""

    def __init__(
        self,
        urls: Mapping[str, Sequence[str]],
        client: httpx.AsyncClient,
        *,
        probe_interval_seconds: float,
    ) -> None:
        """`client` carries the workers' key and the deadlines."""
        self._workers = {model: [Worker(url) for url in each] for model, each in urls.items()}
        self._client = client
        self._interval = probe_interval_seconds

    @property
    def edge_models(self) -> tuple[str, ...]:
        """Names of the configured edge models."""
        return tuple(self._workers)

    def missing(self) -> list[str]:
        """Return the edge models that have no healthy worker."""
        return [model for model in self._workers if not self._healthy(model)]

    def info(self, model: str) -> WorkerInfo:
        """Return what a healthy worker of the model serves.

        Raises:
            EdgeModelNotFound: no such model is configured.
            WorkerUnavailable: no worker of it is healthy.
        """
        healthy = self._healthy(model)
        if not healthy:
            raise _away(model)
        info = healthy[0].info
        assert info is not None
        return info

    async def probe_forever(self) -> None:
        """Ask every worker for its health again and again."""
        while True:
            await self.probe()
            await asyncio.sleep(self._interval)

    async def probe(self) -> None:
        """Ask every worker for its health once."""
        await asyncio.gather(
            *(
                self._probe(model, worker)
                for model, each in self._workers.items()
                for worker in each
            )
        )

    async def count_tokens(self, model: str, messages: Sequence[Mapping[str, Any]]) -> int:
        """Return the length in tokens of messages as the workers of a model render them.

        Raises:
            EdgeModelNotFound, WorkerUnavailable, DeadlineExceeded: see `send`.
        """
        body = {"model": model, "messages": list(messages)}
        async with self.send(model, "/tokenize", body) as response:
            if response.status_code != 200:
                raise WorkerUnavailable(f"a worker of {model!r} could not count tokens")
            return int(response.json()["count"])

    @asynccontextmanager
    async def send(
        self, model: str, path: str, body: Mapping[str, Any], *, recipe: str | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Send a request to a worker and yield its answer as soon as its status is known.

        Raises:
            EdgeModelNotFound: no such model is configured.
            WorkerUnavailable: no worker of it answers.
            DeadlineExceeded: a worker took too long.
        """
        tried: set[str] = set()
        while True:
            worker = self._choose(model, tried)
            tried.add(worker.url)
            with worker.serving():
                response = await self._try(worker, path, body, recipe)
                if response is None:
                    continue
                try:
                    if path == "/tokenize" or response.status_code != 200:
                        await response.aread()
                    yield response
                except httpx.ReadTimeout as error:
                    raise DeadlineExceeded("the worker took too long to answer") from error
                except httpx.HTTPError as error:
                    self._lose(worker, type(error).__name__)
                    raise WorkerUnavailable("the worker was lost while answering") from error
                finally:
                    await response.aclose()
                return

    async def _try(
        self, worker: Worker, path: str, body: Mapping[str, Any], recipe: str | None
    ) -> httpx.Response | None:
        """Return the answer, or None if the worker is gone and another may be tried."""
        headers = {}
        if recipe is not None and len(recipe) <= MAX_HEADER_CHARS:
            headers[RECIPE_HEADER] = recipe
        elif recipe is not None:
            body = {**body, RECIPE_FIELD: recipe}
        request = self._client.build_request("POST", worker.url + path, json=body, headers=headers)
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
            raise DeadlineExceeded("the worker took too long to answer") from error
        except httpx.HTTPError as error:
            self._lose(worker, type(error).__name__)
            return None
        if response.status_code >= 500:
            await response.aclose()
            self._lose(worker, f"status {response.status_code}")
            return None
        return response

    async def _probe(self, model: str, worker: Worker) -> None:
        try:
            health = await self._client.get(worker.url + "/health", timeout=5.0)
            if health.status_code != 200:
                self._lose(worker, f"health {health.status_code}")
                return
            if worker.info is None:
                reply = await self._client.get(worker.url + "/loragen", timeout=5.0)
                info = WorkerInfo.model_validate_json(reply.content)
                if info.edge_model != model:
                    self._lose(worker, f"serves {info.edge_model!r}, not {model!r}")
                    return
                worker.info = info
                logger.info("worker is healthy", extra={"worker": worker.url, "model": model})
        except (httpx.HTTPError, ValidationError) as error:
            self._lose(worker, type(error).__name__)

    def _lose(self, worker: Worker, why: str) -> None:
        if worker.info is not None:
            logger.warning("worker is not healthy", extra={"worker": worker.url, "why": why})
        worker.info = None

    def _healthy(self, model: str) -> list[Worker]:
        workers = self._workers.get(model)
        if workers is None:
            raise EdgeModelNotFound(f"no model {model!r} is served", param="model")
        return [worker for worker in workers if worker.info is not None]

    def _choose(self, model: str, tried: set[str]) -> Worker:
        healthy = [worker for worker in self._healthy(model) if worker.url not in tried]
        if not healthy:
            raise _away(model)
        two = random.sample(healthy, min(2, len(healthy)))
        return min(two, key=lambda worker: worker.outstanding)


def _away(model: str) -> WorkerUnavailable:
    return WorkerUnavailable(f"no worker of model {model!r} answers; try again", retry_after=1.0)
