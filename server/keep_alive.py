"""Keep alive: a comment in an event stream after every silence, so that nobody between takes it for
dead (https://html.spec.whatwg.org/multipage/server-sent-events.html#authoring-notes).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import Message, Send

from loragen.background import end

_COMMENT: Final[Message] = {
    "type": "http.response.body",
    "body": b": keep-alive\n\n",
    "more_body": True,
}


class KeepAlive:
    """Sends the messages of a stream; comments come between them, never within one."""

    def __init__(self, send: Send, *, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._sending = asyncio.Lock()
        self._last = time.monotonic()
        self._is_open = False

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        async with self._sending:
            self._is_open = message.get("more_body", message["type"] == "http.response.start")
            await self._send(message)
            self._last = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Fill silences within the block, which begins with the stream."""
        filling = asyncio.create_task(self._fill())
        try:
            yield
        finally:
            await end([filling])

    async def _fill(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._last + self._seconds - time.monotonic()))
            async with self._sending:
                if time.monotonic() < self._last + self._seconds:
                    continue
                if self._is_open:
                    await self._send(dict(_COMMENT))
                self._last = time.monotonic()
