"""Transport: how workers are reached: httpx's, but for one failure to connect that it lets through.

A server that ends while a connection to it is made leaves anyio a socket that is gone already, and
it asks that socket for its addresses. Whoever catches `httpx.ConnectError` means this case too.
"""

from typing import Final

import httpx

from config.settings import Settings

_ASKED_OF_THE_SOCKET: Final = frozenset({"getpeername", "getsockname"})


class Transport(httpx.AsyncHTTPTransport):
    """HTTP over TCP."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.TransportError: it could not be sent, or not be answered.
        """
        try:
            return await super().handle_async_request(request)
        except AttributeError as error:
            if error.name not in _ASKED_OF_THE_SOCKET:
                raise
            raise httpx.ConnectError("closed while connecting", request=request) from error


def worker_client(settings: Settings) -> httpx.AsyncClient:
    """Return the client that carries the workers' key, and how long they may be silent."""
    secret = settings.worker_secret
    return httpx.AsyncClient(
        headers={"authorization": f"Bearer {secret.get_secret_value()}"} if secret else {},
        timeout=httpx.Timeout(
            settings.server.request_timeout_seconds,
            connect=settings.server.connect_timeout_seconds,
        ),
        # Admission is the crews' business; a pool limit here would only hide their lines.
        # Idle connections go before a worker (5 s) closes them under a request.
        transport=Transport(
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=256, keepalive_expiry=2.0
            )
        ),
    )
