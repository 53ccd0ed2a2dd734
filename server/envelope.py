"""What surrounds every request: its id, its count in the metrics, the end of all failures."""

import re
import uuid
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen import metrics
from loragen.errors import InvalidRequest
from loragen.logs import request_id
from loragen.wire import RECIPE_HEADER
from server.http_errors import error_response, unexpected_response

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Envelope:
    """Pure ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        current = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(current)
        counted = _CountedSend(scope, send, current)
        try:
            if RECIPE_HEADER.encode() in headers:
                error = InvalidRequest(f"header {RECIPE_HEADER} cannot be set in a request")
                await error_response(error)(scope, receive, counted)
                return
            await self._serve(scope, receive, counted)
        finally:
            request_id.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: "_CountedSend") -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # the boundary of a request: nothing may pass it unanswered
            response = unexpected_response(error)
            if send.has_begun:
                raise  # an answer that broke off must not look complete: the server hangs up
            await response(scope, receive, send)


class _CountedSend:
    """Adds the request id to the response and counts it once."""

    def __init__(self, scope: Scope, send: Send, current: str) -> None:
        self._scope = scope
        self._send = send
        self._id = current.encode()
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = message.setdefault("headers", [])
            headers.append((b"x-request-id", self._id))
            mode = dict(headers).get(b"x-loragen-mode", b"none").decode()
            route = getattr(self._scope.get("route"), "path", "unmatched")
            metrics.REQUESTS.labels(route, str(message["status"]), mode).inc()
        await self._send(message)
