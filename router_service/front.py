"""Front: the HTTP interface of the router service, over any generators and refiners.

POST /compile, /measure and /refine and GET /heads want the generator secret; GET /health tells
whether every generator is loaded. All errors have the OpenAI shape. Prompts and probes appear in
no log and in no error.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loragen.errors import (
    InvalidRequest,
    LoragenError,
    NotFound,
    RequestTooLarge,
    Unauthorized,
)
from loragen.wire import (
    CompileReply,
    CompileRequest,
    Head,
    HeadList,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)

logger = logging.getLogger(__name__)

_Request = TypeVar("_Request", CompileRequest, MeasureRequest, RefineRequest)
Handler = Callable[[Request], Awaitable[Response]]


class Generators(Protocol):
    """All generators of the service."""

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt within the service's deadline.

        Raises:
            EdgeModelNotFound: no generator for that edge model.
            PromptTooLong: longer than the generator's context.
            Overloaded: the queue is full.
            GeneratorUnavailable: no actor holds the generator.
            DeadlineExceeded: it took too long.
        """

    async def heads(self) -> tuple[Head, ...]:
        """Return what they compile for.

        Raises:
            GeneratorUnavailable: an actor is not there.
        """


class Refiners(Protocol):
    """All refiners of the service."""

    async def refine(self, request: RefineRequest) -> RefineReply:
        """Refine one task within the service's deadline.

        Raises:
            EdgeModelNotFound: no refiner for that edge model.
            InvalidRequest: its templates refuse the prompt or a probe.
            PromptTooLong: prompt and probe are longer than the edge model's context.
            RecipeInvalid, RecipeMismatch: the start is not a recipe of its pool.
            Overloaded: the queue is full.
            GeneratorUnavailable: no actor holds the refiner.
            DeadlineExceeded: it took too long.
        """

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure the recipe of one task within the service's deadline.

        Raises:
            RecipeInvalid, RecipeMismatch: it is not a recipe of the pool.
            LoragenError: as `refine`.
        """


class Front:
    """The endpoints; `create` returns them as an application."""

    def __init__(
        self, generators: Generators, refiners: Refiners, *, secret: str, max_body_bytes: int
    ) -> None:
        self._generators = generators
        self._refiners = refiners
        self._secret = secret.encode()
        self._max_body_bytes = max_body_bytes

    def create(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/compile", self._authorized(self._compile), methods=["POST"]),
                Route("/measure", self._authorized(self._measure), methods=["POST"]),
                Route("/refine", self._authorized(self._refine), methods=["POST"]),
                Route("/heads", self._authorized(self._heads), methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
            ],
            exception_handlers={
                LoragenError: _on_own,
                HTTPException: _on_http,
                Exception: _on_unexpected,
            },
        )

    def _authorized(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._secret):
                raise Unauthorized("the router service wants its generator secret as Bearer key")
            return await handler(request)

        return guarded

    async def _compile(self, request: Request) -> Response:
        asked = _parse(CompileRequest, await self._read(request))
        return _answer(await self._generators.compile(asked))

    async def _measure(self, request: Request) -> Response:
        asked = _parse(MeasureRequest, await self._read(request))
        return _answer(await self._refiners.measure(asked))

    async def _refine(self, request: Request) -> Response:
        asked = _parse(RefineRequest, await self._read(request))
        return _answer(await self._refiners.refine(asked))

    async def _heads(self, _: Request) -> Response:
        heads = HeadList(heads=await self._generators.heads())
        return JSONResponse(heads.model_dump(mode="json"))

    async def _health(self, _: Request) -> Response:
        await self._generators.heads()
        return JSONResponse({"status": "ok"})

    async def _read(self, request: Request) -> bytes:
        error = RequestTooLarge(f"the request body is larger than {self._max_body_bytes} bytes")
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            raise error
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._max_body_bytes:
                raise error
        return bytes(body)


def _parse(kind: type[_Request], body: bytes) -> _Request:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        # Without the input: it would be the prompt, or a probe.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        if first["type"] == "json_invalid":
            raise InvalidRequest("the request body is not valid JSON") from None
        if first["type"] == "extra_forbidden":
            raise InvalidRequest(f"unknown field {param!r}", param=param) from None
        raise InvalidRequest(f"{param or 'request'}: {first['msg']}", param=param) from None


_HARM: Final = ("does_harm_before", "does_harm_after")


def _answer(reply: CompileReply | MeasureReply | RefineReply) -> JSONResponse:
    # To a gateway from before there were such ids the field would be unknown.
    unknown = set() if reply.request_id else {"request_id"}
    # Nor does every gateway know of harm in the replies of refines, which is rare.
    unknown |= {name for name in _HARM if not getattr(reply, name, True)}
    return JSONResponse(reply.model_dump(exclude=unknown))


def _respond(error: LoragenError) -> JSONResponse:
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


async def _on_own(request: Request, error: Exception) -> Response:
    assert isinstance(error, LoragenError)
    if error.status >= 500:
        logger.warning("request failed", extra={"code": error.code, "path": request.url.path})
    return _respond(error)


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    own: LoragenError = InvalidRequest(error.detail)
    if error.status_code == 404:
        own = NotFound("the router service has /compile, /measure, /refine, /heads and /health")
    return JSONResponse(own.body(), status_code=error.status_code, headers=error.headers)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("request failed", extra={"error": type(error).__name__, "path": request.url.path})
    return _respond(LoragenError("the router service failed"))
