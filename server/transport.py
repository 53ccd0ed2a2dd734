"""Transport: httpx's, with the one failure to connect that httpx lets through as it is.

A server that ends while a connection to it is made leaves anyio a socket that is gone already, and
it asks that socket for its addresses. Whoever catches `httpx.ConnectError` means this case too.
"""

from typing import Final

import httpx

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
