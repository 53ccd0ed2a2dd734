"""Transport: how workers and the router service are reached, over connections that are kept.

HTTP/1.1 is httpcore's, its pool is not: that looks at every connection it has for every request and
every end of one, at those that wait with a system call, so that a request costs the more the more
run beside it. Here a request takes the connection that was last given back, and looks at no other.
"""

import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpcore
import httpx

from config.settings import Settings
from server.network import Network

_KEPT_SECONDS: Final = 2.0
"""Idle connections go before a worker (5 s) or a proxy closes them under a request."""
_KEPT: Final = 256
"""Idle connections to one worker."""

_FAILURES: Final[dict[type[Exception], type[httpx.TransportError]]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
}


class Transport(httpx.AsyncBaseTransport):
    """As many connections as there are requests at once, and those left over by former ones."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        """Take what workers behind https are held to; default: what httpx asks of anybody."""
        self._ssl_context = ssl_context or httpx.create_ssl_context()
        self._network = Network()
        self._idle: defaultdict[str, deque[httpcore.AsyncHTTPConnection]] = defaultdict(deque)
        """By the address of their worker; in the order in which they were given back."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer as soon as that begins.

        Raises:
            httpx.TransportError: it could not be sent, or not be answered.
        """
        assert isinstance(request.stream, httpx.AsyncByteStream)
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        sent = httpcore.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        connection = await self._take(url.origin)
        try:
            with _mapped():
                answer = await connection.handle_async_request(sent)
        except BaseException:  # a request given up between two steps is closed by nobody else
            await connection.aclose()
            raise
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer, lambda: self._give_back(url.origin, connection)),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close the connections that wait for a request."""
        for idle in self._idle.values():
            while idle:
                await idle.pop().aclose()

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        idle = self._idle[str(origin)]
        while idle:
            connection = idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        await self._close_expired()
        return httpcore.AsyncHTTPConnection(
            origin, self._ssl_context, _KEPT_SECONDS, network_backend=self._network
        )

    async def _give_back(
        self, origin: httpcore.Origin, connection: httpcore.AsyncHTTPConnection
    ) -> None:
        """Keep a connection for another request, if it can have one."""
        if not connection.is_idle():  # its answer was not read to the end
            await connection.aclose()
            return
        idle = self._idle[str(origin)]
        idle.append(connection)
        for each in _surplus(idle):
            await each.aclose()

    async def _close_expired(self) -> None:
        """Close what was kept for workers that nobody asks any more."""
        expired = [each for idle in self._idle.values() for each in _surplus(idle)]
        for origin in [origin for origin, idle in self._idle.items() if not idle]:
            del self._idle[origin]
        for each in expired:
            await each.aclose()


def _surplus(idle: deque[httpcore.AsyncHTTPConnection]) -> list[httpcore.AsyncHTTPConnection]:
    """Take those out that are too many or expired, the one that was just given back too.

    Nothing is awaited here: between two looks at a pool it might be another one.
    """
    surplus = []
    while idle and (len(idle) > _KEPT or idle[0].has_expired()):
        surplus.append(idle.popleft())
    return surplus


class _Body(httpx.AsyncByteStream):
    """The body of an answer, which gives its connection back when it is closed."""

    def __init__(self, answer: httpcore.Response, give_back: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self._give_back = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts as they come."""
        with _mapped():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        """End the answer, whether it was read or not."""
        try:
            await self._answer.aclose()
        finally:
            await self._give_back()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except tuple(_FAILURES) as error:
        raise _FAILURES[type(error)](str(error)) from error


def worker_client(settings: Settings) -> httpx.AsyncClient:
    """Return the client that carries the workers' key, and how long they may be silent."""
    secret = settings.worker_secret
    return httpx.AsyncClient(
        headers={
            "accept-encoding": "identity",  # what is not compressed is passed on as it comes
            **({"authorization": f"Bearer {secret.get_secret_value()}"} if secret else {}),
        },
        timeout=httpx.Timeout(
            settings.server.request_timeout_seconds,
            connect=settings.server.connect_timeout_seconds,
        ),
        # Admission is the crews' business; a limit here would only hide their lines.
        transport=Transport(),
    )
