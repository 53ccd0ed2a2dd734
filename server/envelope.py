"""What surrounds every request: its id, its size limit, its count in the metrics."""

import re
import uuid
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen import metrics
from loragen.errors import InvalidRequest, LoragenError, RequestTooLarge
from loragen.logs import request_id
from loragen.wire import RECIPE_HEADER
from server.http_errors import error_response, unexpected_response

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Envelope:
    """Pure ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, exceptions: Mapping[str, int] | None = None
    ) -> None:
        """Take the limit of a body, and those of paths that have another."""
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._exceptions = exceptions or {}

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
            try:
                limit = self._exceptions.get(scope["path"], self._max_body_bytes)
                body = await _read(headers, receive, limit)
            except LoragenError as too_large:
                await error_response(too_large)(scope, receive, counted)
                return
            await self._serve(scope, _Replay(body, receive), counted)
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


class _Replay:
    """Gives the application the body that was read, then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _read(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    error = RequestTooLarge(f"the request body is larger than {limit} bytes")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise error
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise error
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)
