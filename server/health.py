"""Health: every worker is asked again and again whether it lives and what it serves."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, get_args

import httpx
from pydantic import ValidationError

from loragen import metrics
from loragen.wire import WorkerBackend, WorkerInfo
from server.crew import Crew
from server.discovery import Discovery
from server.worker import Worker

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 5.0


class Health:
    """Finds the workers of every edge model and tells their crews who is healthy."""

    def __init__(
        self,
        crews: Mapping[str, Crew],
        client: httpx.AsyncClient,
        *,
        interval_seconds: float,
        discovery: Discovery | None = None,
    ) -> None:
        """`client` carries the workers' key; `discovery` changes who is in a crew."""
        self._crews = crews
        self._client = client
        self._interval = interval_seconds
        self._discovery = discovery or Discovery({})

    async def probe_forever(self) -> None:
        """Ask every worker for its health again and again; one that hangs holds up no other."""
        for _, worker in self._all():  # this is begun again after a surprise, which ended them all
            worker.watched = False
        async with asyncio.TaskGroup() as group:
            while True:
                for crew, worker in self._all():
                    if not worker.watched:
                        worker.watched = True
                        group.create_task(self._watch(crew, worker))
                await asyncio.sleep(self._interval)
                await self._list()
                for crew in self._crews.values():
                    _count(crew)

    async def probe(self) -> None:
        """Look for the workers and ask every one for its health, once."""
        await self._list()
        await asyncio.gather(*(self._probe(crew, worker) for crew, worker in self._all()))

    async def _watch(self, crew: Crew, worker: Worker) -> None:
        while worker.listed:
            await self._probe(crew, worker)
            metrics.WORKER_UP.labels(crew.model, worker.url).set(worker.info is not None)
            await asyncio.sleep(self._interval)
        with suppress(KeyError):  # it left before its first probe
            metrics.WORKER_UP.remove(crew.model, worker.url)

    async def _list(self) -> None:
        for model, urls in (await self._discovery.look()).items():
            self._crews[model].relist(urls)

    async def _probe(self, crew: Crew, worker: Worker) -> None:
        known = worker.info
        try:
            health = await self._client.get(worker.url + "/health", timeout=PROBE_SECONDS)
            if health.status_code != 200:
                crew.lose(worker, f"health {health.status_code}")
                return
            info = await _info(self._client, worker.url)
            if info.edge_model != crew.model:
                crew.lose(worker, f"serves {info.edge_model!r}, not {crew.model!r}")
            elif worker.listed and worker.info is known:  # else a request has learned more
                crew.admit(worker, info)
        except (httpx.HTTPError, ValidationError) as error:
            crew.lose(worker, type(error).__name__)
        except Exception as error:  # the boundary of a loop that must outlive any surprise
            logger.error("probe failed", exc_info=error, extra={"worker": worker.url})
            crew.lose(worker, type(error).__name__)

    def _all(self) -> list[tuple[Crew, Worker]]:
        return [(crew, worker) for crew in self._crews.values() for worker in crew.workers]


def _count(crew: Crew) -> None:
    metrics.HEALTHY_WORKERS.labels(crew.model).set(len(crew.healthy))
    backends = crew.backends
    for backend in get_args(WorkerBackend):
        metrics.BACKEND_WORKERS.labels(crew.model, backend).set(backends[backend])


async def try_info(client: httpx.AsyncClient, url: str) -> WorkerInfo | None:
    """Return what the worker at an address serves, None where it does not say."""
    try:
        return await _info(client, url)
    except (httpx.HTTPError, ValidationError):
        return None


async def _info(client: httpx.AsyncClient, url: str) -> WorkerInfo:
    reply = await client.get(url + "/loragen", timeout=PROBE_SECONDS)
    return WorkerInfo.model_validate_json(reply.content)
