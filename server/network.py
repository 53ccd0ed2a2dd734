"""Network: TCP and TLS under httpcore by asyncio's own streams.

httpcore comes with anyio's, which serves several event loops and gives way to others around every
read and write; on the way of every token that costs more than the reading does.
"""

import asyncio
import select
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

Failures = tuple[type[httpcore.TimeoutException], type[httpcore.NetworkError]]

_CONNECTING: Failures = (httpcore.ConnectTimeout, httpcore.ConnectError)
_READING: Failures = (httpcore.ReadTimeout, httpcore.ReadError)
_WRITING: Failures = (httpcore.WriteTimeout, httpcore.WriteError)


class Network(httpcore.AsyncNetworkBackend):
    """Makes connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection.

        Raises:
            httpcore.ConnectTimeout, httpcore.ConnectError: there is none.
        """
        assert local_address is None
        assert socket_options is None
        with _mapped(_CONNECTING):
            async with asyncio.timeout(timeout):
                return Stream(*await asyncio.open_connection(host, port))


class Stream(httpcore.AsyncNetworkStream):
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Return what has come, once something has; empty at the end.

        Raises:
            httpcore.ReadTimeout, httpcore.ReadError: nothing came.
        """
        with _mapped(_READING):
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send bytes.

        Raises:
            httpcore.WriteTimeout, httpcore.WriteError: they could not be sent.
        """
        if not buffer:
            return
        with _mapped(_WRITING):
            self._writer.write(buffer)
            async with asyncio.timeout(timeout):
                await self._writer.drain()

    async def aclose(self) -> None:
        """Hang up; nobody waits for what was not sent or read."""
        self._writer.transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """Go on in TLS.

        Raises:
            httpcore.ConnectTimeout, httpcore.ConnectError: the other side does not.
        """
        with _mapped(_CONNECTING):
            async with asyncio.timeout(timeout):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._is_readable() if info == "is_readable" else self._writer.get_extra_info(info)

    def _is_readable(self) -> bool:
        """Whether a read would not wait: of an idle connection, that the other side hung up."""
        if self._reader.at_eof() or self._writer.is_closing():
            return True
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))


@contextmanager
def _mapped(failures: Failures) -> Iterator[None]:
    late, lost = failures
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, RuntimeError) as error:
        # uvloop's answer to a write to a connection that was reset is a RuntimeError.
        raise lost(str(error)) from error
