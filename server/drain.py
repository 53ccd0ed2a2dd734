"""Drain of the gateway: how it ends without breaking an answer.

At once it is not ready any more, while it still accepts: load balancers need a moment to notice.
Then it accepts nothing new, and what runs may finish until a deadline. What has not finished by
then gets an answer that says so: 503, or in a stream a last error event and no `[DONE]`.
"""

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen.drain import Drain
from loragen.errors import Unavailable
from server.http_errors import error_response


class DrainMiddleware:
    """Pure ASGI middleware that ends every answer in order when the gateway ends."""

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._drain)
        limit: asyncio.Timeout | None = None
        try:
            async with self._drain.limit() as limit:
                await self._app(scope, receive, answer)
        except TimeoutError:
            if limit is None or not limit.expired():
                raise
            await answer.cut_off(scope, receive)


class _Answer:
    """Sends a response and knows how far it is."""

    def __init__(self, send: Send, drain: Drain) -> None:
        self._send = send
        self._drain = drain
        self._has_begun = False
        self._is_stream = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            headers = message.setdefault("headers", [])
            self._is_stream = dict(headers).get(b"content-type", b"").startswith(b"text/event-str")
            if self._drain.has_begun:
                headers.append((b"connection", b"close"))
        await self._send(message)

    async def cut_off(self, scope: Scope, receive: Receive) -> None:
        """End the response; one that is neither unbegun nor a stream is left for the hang-up."""
        error = Unavailable("the server is shutting down; try again", retry_after=1.0)
        if not self._has_begun:
            await error_response(error)(scope, receive, self)
        elif self._is_stream:
            event = b"data: " + json.dumps(error.body(), separators=(",", ":")).encode() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
