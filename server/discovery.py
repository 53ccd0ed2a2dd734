"""Discovery: the workers behind host names, as a headless Kubernetes Service lists its pods.

An edge model has one name, and a second one during the upgrade of its pool. A name server that is
silent, or that does not know the name, takes no worker away: those that are gone fail their health
probes.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Self

import httpx

from config.edge_model import EdgeModelSettings

logger = logging.getLogger(__name__)

_LOOKUP_SECONDS: Final = 5.0

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]
"""From the URL of a service to the URLs of its workers; OSError where there is no answer."""


class Discovery:
    """The services of the edge models whose workers are found by name."""

    def __init__(self, services: Mapping[str, Sequence[str]], lookup: Lookup | None = None) -> None:
        """`services` maps an edge model to URLs; the host of each stands for many workers."""
        self._services = {model: tuple(urls) for model, urls in services.items()}
        self._lookup = lookup or resolve_addresses
        self._silent: set[str] = set()
        self._listed: dict[str, tuple[str, ...]] = {}

    @classmethod
    def of(cls, edge_models: Sequence[EdgeModelSettings]) -> Self:
        """Return the services that are configured."""
        services = {
            model.name: [
                str(url)
                for url in (model.worker_service, model.next_worker_service)
                if url is not None
            ]
            for model in edge_models
            if model.worker_service is not None
        }
        return cls(services)

    async def look(self) -> dict[str, tuple[str, ...]]:
        """Return the URLs of the workers of every edge model of which a name was ever answered."""
        await asyncio.gather(*(self._ask(url) for urls in self._services.values() for url in urls))
        found = {
            model: tuple(dict.fromkeys(each for url in urls for each in self._listed.get(url, ())))
            for model, urls in self._services.items()
        }
        return {model: workers for model, workers in found.items() if workers}

    async def _ask(self, url: str) -> None:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                self._listed[url] = await self._lookup(url)
        except (OSError, TimeoutError) as error:
            if url not in self._silent:
                logger.warning("no worker is listed", extra={"service": url, "why": str(error)})
            self._silent.add(url)
            return
        self._silent.discard(url)


async def resolve_addresses(url: str) -> tuple[str, ...]:
    """Return `url` once for every IP address of its host, in a steady order.

    Raises:
        OSError: the name has no address, or no name server answers.
    """
    service = httpx.URL(url)
    found = await asyncio.get_running_loop().getaddrinfo(
        service.host, service.port, type=socket.SOCK_STREAM
    )
    hosts = sorted({str(address[0]) for *_, address in found})
    return tuple(str(service.copy_with(host=host)).rstrip("/") for host in hosts)
