"""Discovery: the workers behind one host name, as a headless Kubernetes Service lists its pods.

A name server that is silent, or that does not know the name, takes no worker away: those that are
gone fail their health probes.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import httpx

logger = logging.getLogger(__name__)

_LOOKUP_SECONDS: Final = 5.0

Lookup = Callable[[str], Awaitable[tuple[str, ...]]]
"""From the URL of a service to the URLs of its workers; OSError where there is no answer."""


class Discovery:
    """The services of the edge models whose workers are found by name."""

    def __init__(self, services: Mapping[str, str], lookup: Lookup | None = None) -> None:
        """`services` maps an edge model to one URL; its host stands for all workers."""
        self._services = dict(services)
        self._lookup = lookup or resolve_addresses
        self._silent: set[str] = set()

    async def look(self) -> dict[str, tuple[str, ...]]:
        """Return the URLs of the workers of every edge model whose name was answered."""
        answers = await asyncio.gather(*(self._ask(model) for model in self._services))
        return {model: urls for model, urls in zip(self._services, answers, strict=True) if urls}

    async def _ask(self, model: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                urls = await self._lookup(self._services[model])
        except (OSError, TimeoutError) as error:
            if model not in self._silent:
                logger.warning("no worker is listed", extra={"model": model, "why": str(error)})
            self._silent.add(model)
            return ()
        self._silent.discard(model)
        return urls


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
