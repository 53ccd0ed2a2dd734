"""The generator as the gateway sees it: an HTTP client of the router service."""

import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import httpx
from pydantic import ValidationError

from loragen import metrics
from loragen.errors import (
    DeadlineExceeded,
    EdgeModelNotFound,
    GeneratorUnavailable,
    InvalidRequest,
    LoragenError,
    NotFound,
    Overloaded,
    PromptTooLong,
    RecipeInvalid,
    RecipeMismatch,
    RequestTooLarge,
)
from loragen.wire import (
    CompileReply,
    CompileRequest,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)
from server.transport import Transport

logger = logging.getLogger(__name__)

_KNOWN: Final[Mapping[str, type[LoragenError]]] = {
    error.code: error
    for error in (
        DeadlineExceeded, EdgeModelNotFound, InvalidRequest, NotFound, PromptTooLong,
        RecipeInvalid, RecipeMismatch,
    )
} | {RequestTooLarge.code: PromptTooLong}  # fmt: skip
"""What a refusal of the router service is to its caller, by its code."""
_PING_SECONDS: Final = 2.0

_Reply = TypeVar("_Reply", CompileReply, MeasureReply, RefineReply)


class Generator(Protocol):
    """Compiles prompts, measures recipes and refines tasks."""

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt.

        Raises:
            PromptTooLong: longer than the generator's context.
            GeneratorUnavailable: it does not answer.
            Overloaded: its queue is full.
            DeadlineExceeded: it took too long.
            LoragenError: it failed.
        """

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure the recipe of one task.

        Raises:
            InvalidRequest: the probes cannot be used, or there are none and none can be made up.
            EdgeModelNotFound: nothing measures for that edge model.
            NotFound: the router service is of a version that measures nothing.
            RecipeMismatch: the recipe is of another pool.
            GeneratorUnavailable, Overloaded, DeadlineExceeded, LoragenError: as `compile`.
        """

    async def refine(self, request: RefineRequest) -> RefineReply:
        """Refine one task.

        Raises:
            InvalidRequest: prompt or probes cannot be used.
            EdgeModelNotFound: nothing refines for that edge model.
            RecipeMismatch: the start is of another pool.
            GeneratorUnavailable, Overloaded, DeadlineExceeded, LoragenError: as `compile`.
        """

    async def ping(self) -> None:
        """Return if it answers.

        Raises:
            GeneratorUnavailable: it does not.
        """

    async def close(self) -> None:
        """Give back the connections."""


class HttpGenerator:
    """The router service behind `url`; after a failed connection it is left alone for a moment."""

    def __init__(
        self,
        url: str,
        *,
        secret: str | None,
        timeout_seconds: float,
        refine_timeout_seconds: float,
        cooldown_seconds: float = 1.0,
    ) -> None:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        self._timeout = timeout_seconds
        self._refine_timeout = refine_timeout_seconds
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_timeout(_PING_SECONDS), transport=Transport()
        )
        self._cooldown = cooldown_seconds
        self._retry_at = 0.0

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt; see `Generator.compile` for what it raises."""
        return await self._call("/compile", request, CompileReply, seconds=self._timeout)

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure one recipe; see `Generator.measure` for what it raises."""
        return await self._call("/measure", request, MeasureReply, seconds=self._refine_timeout)

    async def refine(self, request: RefineRequest) -> RefineReply:
        """Refine one task; see `Generator.refine` for what it raises."""
        return await self._call("/refine", request, RefineReply, seconds=self._refine_timeout)

    async def ping(self) -> None:
        """Return if it answers; see `Generator.ping` for what it raises."""
        try:
            async with self._mapped():
                response = await self._client.get("/health")
        except DeadlineExceeded as error:
            raise GeneratorUnavailable("the generator does not answer", retry_after=1.0) from error
        if response.status_code != 200:
            raise GeneratorUnavailable("the generator is not ready", retry_after=1.0)

    async def close(self) -> None:
        """Give back the connections."""
        await self._client.aclose()

    async def _call(
        self,
        path: str,
        request: CompileRequest | MeasureRequest | RefineRequest,
        kind: type[_Reply],
        *,
        seconds: float,
    ) -> _Reply:
        request_id = uuid.uuid4().hex
        body = request.model_dump(exclude_defaults=True) | {"request_id": request_id}
        async with self._mapped():
            response = await self._client.post(path, json=body, timeout=_timeout(seconds))
        if response.status_code != 200:
            raise _refusal(response)
        try:
            reply = kind.model_validate_json(response.content)
        except ValidationError as error:
            raise LoragenError("the generator gave an unreadable reply") from error
        if reply.request_id != request_id:  # else a task would answer by another's recipe
            metrics.MISDIRECTED.labels("generator").inc()
            logger.error("the generator's reply is to another request", extra={"path": path})
            # Not the prompt's fault, so that nothing is recorded against its task.
            raise GeneratorUnavailable(
                "the generator's reply is to another request", retry_after=1.0
            )
        return reply

    @asynccontextmanager
    async def _mapped(self) -> AsyncIterator[None]:
        """The one place where httpx' errors become ours."""
        if time.monotonic() < self._retry_at:
            raise self._unavailable()
        try:
            yield
        except httpx.ConnectTimeout as error:
            self._retry_at = time.monotonic() + self._cooldown
            raise self._unavailable() from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded("the generator took too long") from error
        except httpx.HTTPError as error:
            self._retry_at = time.monotonic() + self._cooldown
            raise self._unavailable() from error

    def _unavailable(self) -> GeneratorUnavailable:
        return GeneratorUnavailable("the generator does not answer", retry_after=self._cooldown)


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=_PING_SECONDS)


def _refusal(response: httpx.Response) -> LoragenError:
    try:
        fields = response.json()["error"]
        code, message = str(fields["code"]), str(fields["message"])
        is_older = fields.get("param") == "request_id"
    except (ValueError, KeyError, TypeError, AttributeError):
        code, message, is_older = "", f"the generator answered {response.status_code}", False
    if is_older:
        return GeneratorUnavailable("the generator is older than this gateway", retry_after=1.0)
    if code in _KNOWN:
        return _KNOWN[code](message)
    if code == Overloaded.code:
        return Overloaded(message, retry_after=1.0)
    if response.status_code in (502, 503, 504) or code == GeneratorUnavailable.code:
        return GeneratorUnavailable("the generator is not ready")
    return LoragenError(message)
