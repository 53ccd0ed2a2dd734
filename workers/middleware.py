"""ASGI middleware in front of vLLM's routes: the key everywhere, and the recipe of a request.

vLLM's own guard covers /v1 and a few prefixes; routes such as /invocations, /tokenize or our
/loragen would be open. It stands outside ours, so a request without key never gets to its recipe.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any, Final, Protocol

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loragen.errors import InvalidRequest, LoragenError, RecipeInvalid, Unauthorized
from loragen.wire import MAX_HEADER_CHARS, RECIPE_FIELD, RECIPE_HEADER

logger = logging.getLogger("vllm.loragen")  # below "vllm": its handlers and level apply

OPEN_PATHS: Final = ("/health", "/metrics")
"""Answered without a key: they say nothing about tenants, and probes have none."""


class Intake(Protocol):
    """Serves a request with a recipe, or refuses it with a LoragenError."""

    def admit(self, text: str) -> AbstractContextManager[Any]:
        """Serve the enclosed request with the recipe in `text`, as what is returned."""

    def turn(self, admitted: Any, /) -> AbstractAsyncContextManager[None] | None:
        """Wait until what was admitted can be served, and hold its place; None: nothing waits."""


class KeyMiddleware:
    """Asks for the worker's key on every path but OPEN_PATHS."""

    def __init__(self, app: ASGIApp, *, verify: Callable[[Headers], bool]) -> None:
        self._app = app
        self._verify = verify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if (
            scope["type"] in ("http", "websocket")
            and not scope["path"].startswith(OPEN_PATHS)
            and not self._verify(Headers(scope=scope))
        ):
            refusal = Unauthorized("wrong or missing worker key")
            await refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)


class RecipeMiddleware:
    """Takes the recipe out of a request and serves the rest of it under that recipe."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its recipe, or answer 400 or 409."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = receive
        async with AsyncExitStack() as admission:
            try:
                scope, receive, text = await _take_recipe(scope, receive)
                if text is not None:
                    intake: Intake = scope["app"].state.recipe_intake
                    turn = intake.turn(admission.enter_context(intake.admit(text)))
                    if turn is not None and not await _comes(turn, admission, client):
                        return
            except LoragenError as error:
                await refuse(error, scope, receive, send)
                return
            await self._app(scope, receive, send)


async def _comes(
    turn: AbstractAsyncContextManager[None], admission: AsyncExitStack, client: Receive
) -> bool:
    """Enter a turn, and return True; or False once the client has left, whose place is given up.

    Nobody is told of a client that leaves but who asks for what it sends.
    """
    entered = asyncio.create_task(admission.enter_async_context(turn))
    left = asyncio.create_task(_leaves(client))
    try:
        await asyncio.wait({entered, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
        came = entered.done() or not entered.cancel()
    if came:
        await entered
    return came


async def _leaves(client: Receive) -> None:
    while (await client())["type"] != "http.disconnect":
        pass


async def _take_recipe(scope: Scope, receive: Receive) -> tuple[Scope, Receive, str | None]:
    """Return the request without its recipe, and the recipe."""
    in_header = _recipe_in_header(Headers(scope=scope))
    if scope["method"] != "POST":
        return scope, receive, in_header
    scope, receive, in_body = await _recipe_in_body(scope, receive)
    if in_header is not None and in_body is not None:
        raise InvalidRequest(
            f"give the recipe in {RECIPE_HEADER} or in {RECIPE_FIELD}, not in both",
            param=RECIPE_FIELD,
        )
    return scope, receive, in_body if in_header is None else in_header


def _recipe_in_header(headers: Headers) -> str | None:
    values = headers.getlist(RECIPE_HEADER)
    if not values:
        return None
    if len(values) > 1:
        raise RecipeInvalid(f"{RECIPE_HEADER} is given {len(values)} times", param=RECIPE_HEADER)
    if len(values[0]) > MAX_HEADER_CHARS:
        raise RecipeInvalid(
            f"{RECIPE_HEADER} takes {MAX_HEADER_CHARS} characters, got {len(values[0])}: "
            f"send a larger recipe as {RECIPE_FIELD} in the body",
            param=RECIPE_HEADER,
        )
    return values[0]


async def _recipe_in_body(scope: Scope, receive: Receive) -> tuple[Scope, Receive, str | None]:
    """Return the request without RECIPE_FIELD, and the recipe that was there."""
    body = await _read(receive)
    text = None
    if RECIPE_FIELD.encode() in body:  # most bodies have none and stay unparsed
        body, text = _pop_field(body)
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        scope = {**scope, "headers": headers}
    return scope, _replay(body, receive), text


async def _read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives `body` first, then whatever comes (a disconnect)."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _pop_field(body: bytes) -> tuple[bytes, str | None]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body, None  # vLLM says what is wrong with it
    if not isinstance(fields, dict) or RECIPE_FIELD not in fields:
        return body, None
    text = fields.pop(RECIPE_FIELD)
    if not isinstance(text, str):
        raise RecipeInvalid(f"{RECIPE_FIELD} must be a base64url string", param=RECIPE_FIELD)
    return json.dumps(fields).encode(), text


async def refuse(error: LoragenError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error."""
    logger.info("request to %s refused: %s", scope["path"], error.code)
    response = JSONResponse(error.body(), status_code=error.status)
    await response(scope, receive, send)
