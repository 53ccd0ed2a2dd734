"""Body limit: a request is read whole, up to a size, before the application sees it."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen.errors import InvalidRequest, LoragenError, RequestTooLarge
from server.http_errors import CLIENT_CLOSED_REQUEST, error_response


class BodyLimit:
    """Pure ASGI middleware that refuses bodies over a limit."""

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, exceptions: Mapping[str, int] | None = None
    ) -> None:
        """Take the limit of a body, and those of paths that have another."""
        self._app = app
        self._max_bytes = max_bytes
        self._exceptions = exceptions or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._exceptions.get(scope["path"], self._max_bytes)
        try:
            body = await _read(dict(scope["headers"]), receive, limit)
        except LoragenError as refusal:
            await error_response(refusal)(scope, receive, send)
            return
        if body is None:
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
            return
        await self._app(scope, _Replay(body, receive), send)


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


async def _read(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes | None:
    """Return the body, None if the client left within it."""
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":  # a few bytes of it may be gigabytes
        raise InvalidRequest("the body must not be compressed: send it without content-encoding")
    error = RequestTooLarge(f"the request body is larger than {limit} bytes")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise error
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise error
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)
