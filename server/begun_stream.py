"""Begun stream: an answer that is passed on once its first bytes are here.

A worker sends the head of a stream before its first token. To wait for the first bytes lets a
request go to another worker while the client has seen nothing yet.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx


class BegunStream(httpx.AsyncByteStream):
    """The body of a response, whose first part has been asked for."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._parts = response.aiter_raw()
        self._first = asyncio.create_task(self._next())

    async def wait(self, *, seconds: float) -> None:
        """Return once the first part is here, or the time is over.

        Raises:
            httpx.HTTPError: the worker was lost before it came.
        """
        done, _ = await asyncio.wait({self._first}, timeout=seconds)
        if done:
            self._first.result()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body."""
        yield await self._first
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        """Give the connection back."""
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._response.aclose()

    async def _next(self) -> bytes:
        return await anext(self._parts, b"")


async def begun(response: httpx.Response, *, seconds: float) -> httpx.Response:
    """Return a response with the same body once that has begun, after so many seconds anyway.

    Raises:
        httpx.HTTPError: the worker was lost before its first bytes; the response is closed.
    """
    stream = BegunStream(response)
    try:
        await stream.wait(seconds=seconds)
    except BaseException:
        await stream.aclose()
        raise
    return httpx.Response(response.status_code, stream=stream)
