"""Dispatch: choose a worker of an edge model and send.

The fewer outstanding of two random healthy workers. Any worker serves any task, so there is no
affinity to keep. Another worker is tried only before the first byte of an answer, when the chosen
one turns out to be gone; once only if the request had reached it, lest a request that kills its
worker goes round and kills them all. For the same reason a 500 is an answer, not a lost worker.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import httpx
from pydantic import ValidationError

from loragen import metrics
from loragen.errors import DeadlineExceeded, EdgeModelNotFound, WorkerUnavailable
from loragen.tools import Tool
from loragen.wire import MAX_HEADER_CHARS, RECIPE_FIELD, RECIPE_HEADER, WorkerInfo
from server.answer import refusal
from server.discovery import Discovery

logger = logging.getLogger(__name__)

_GONE: Final = frozenset({502, 503, 504})
_PROBE_SECONDS: Final = 5.0


class Loss(Enum):
    """How a worker failed to begin an answer."""

    UNREACHED = "the request never got to it"
    DROPPED = "it had the request"


@dataclass(slots=True)
class Worker:
    """One worker as this gateway sees it; `info` is None while it is not healthy.

    `listed` ends when its service lists it no longer; what it is answering it answers still.
    """

    url: str
    outstanding: int = 0
    info: WorkerInfo | None = None
    listed: bool = True
    watched: bool = False

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
            self._forget()

    def unlist(self) -> None:
        """Take no more requests."""
        self.listed, self.info = False, None
        self._forget()

    def _forget(self) -> None:
        # Addresses come and go with pods: without this their series would pile up.
        if not self.listed and self.outstanding == 0:
            with suppress(KeyError):  # it never had a request
                metrics.WORKER_REQUESTS_INFLIGHT.remove(self.url)


class Dispatcher:
    """Sends requests to the workers of every edge model and watches their health."""

    def __init__(
        self,
        urls: Mapping[str, Sequence[str]],
        client: httpx.AsyncClient,
        *,
        probe_interval_seconds: float,
        discovery: Discovery | None = None,
    ) -> None:
        """`client` carries the workers' key and the deadlines; `discovery` changes the `urls`."""
        self._discovery = discovery or Discovery({})
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
        """Ask every worker for its health again and again; one that hangs holds up no other."""
        async with asyncio.TaskGroup() as group:
            while True:
                for model, worker in self._all():
                    if not worker.watched:
                        worker.watched = True
                        group.create_task(self._watch(model, worker))
                await asyncio.sleep(self._interval)
                await self._list()
                for model in self._workers:
                    metrics.HEALTHY_WORKERS.labels(model).set(len(self._healthy(model)))

    async def probe(self) -> None:
        """Look for the workers and ask every one for its health, once."""
        await self._list()
        await asyncio.gather(*(self._probe(model, worker) for model, worker in self._all()))

    async def count_tokens(
        self, model: str, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Tool] = ()
    ) -> int:
        """Return the length in tokens of messages as the workers of a model render them.

        Raises:
            InvalidRequest: the model's template refuses the messages.
            EdgeModelNotFound, WorkerUnavailable, DeadlineExceeded: see `send`.
        """
        body: dict[str, Any] = {"model": model, "messages": list(messages)}
        if tools:
            body["tools"] = [tool.body() for tool in tools]
        async with self.send(model, "/tokenize", body) as response:
            if response.status_code != 200:
                raise refusal(response)
            try:
                return int(response.json()["count"])
            except (ValueError, KeyError, TypeError) as error:
                raise WorkerUnavailable("a worker could not count tokens") from error

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
        drops = 0
        while drops < 2:
            worker = self._choose(model, tried)
            tried.add(worker.url)
            with worker.serving():
                response = await self._try(worker, path, body, recipe)
                if not isinstance(response, httpx.Response):
                    drops += response is Loss.DROPPED
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
        raise WorkerUnavailable("two workers were lost with this request", retry_after=1.0)

    async def _try(
        self, worker: Worker, path: str, body: Mapping[str, Any], recipe: str | None
    ) -> httpx.Response | Loss:
        headers = {}
        if recipe is not None and len(recipe) <= MAX_HEADER_CHARS:
            headers[RECIPE_HEADER] = recipe
        elif recipe is not None:
            body = {**body, RECIPE_FIELD: recipe}
        request = self._client.build_request("POST", worker.url + path, json=body, headers=headers)
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._lose(worker, type(error).__name__)
            return Loss.UNREACHED
        except httpx.TimeoutException as error:
            raise DeadlineExceeded("the worker took too long to answer") from error
        except httpx.HTTPError as error:
            self._lose(worker, type(error).__name__)
            return Loss.DROPPED
        if response.status_code in _GONE:
            await response.aclose()
            self._lose(worker, f"status {response.status_code}")
            return Loss.DROPPED
        return response

    async def _watch(self, model: str, worker: Worker) -> None:
        while worker.listed:
            await self._probe(model, worker)
            metrics.WORKER_UP.labels(model, worker.url).set(worker.info is not None)
            await asyncio.sleep(self._interval)
        with suppress(KeyError):  # it left before its first probe
            metrics.WORKER_UP.remove(model, worker.url)

    async def _list(self) -> None:
        """Take the workers that discovery lists, and no longer those that it does not."""
        for model, urls in (await self._discovery.look()).items():
            known = {worker.url: worker for worker in self._workers[model]}
            self._workers[model] = [known.pop(url, Worker(url)) for url in urls]
            for worker in known.values():
                worker.unlist()

    async def _probe(self, model: str, worker: Worker) -> None:
        try:
            health = await self._client.get(worker.url + "/health", timeout=_PROBE_SECONDS)
            if health.status_code != 200:
                self._lose(worker, f"health {health.status_code}")
                return
            reply = await self._client.get(worker.url + "/loragen", timeout=_PROBE_SECONDS)
            info = WorkerInfo.model_validate_json(reply.content)
            if info.edge_model != model:
                self._lose(worker, f"serves {info.edge_model!r}, not {model!r}")
                return
            if worker.info is None:
                logger.info("worker is healthy", extra={"worker": worker.url, "model": model})
            worker.info = info
        except (httpx.HTTPError, ValidationError) as error:
            self._lose(worker, type(error).__name__)
        except Exception as error:  # the boundary of a loop that must outlive any surprise
            logger.error("probe failed", exc_info=error, extra={"worker": worker.url})
            self._lose(worker, type(error).__name__)

    def _lose(self, worker: Worker, why: str) -> None:
        if worker.info is not None:
            logger.warning("worker is not healthy", extra={"worker": worker.url, "why": why})
        worker.info = None

    def _all(self) -> list[tuple[str, Worker]]:
        return [(model, worker) for model, each in self._workers.items() for worker in each]

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
