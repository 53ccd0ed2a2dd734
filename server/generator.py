"""The generator as the gateway sees it: an HTTP client of the router service."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import httpx
from pydantic import ValidationError

from loragen.errors import (
    DeadlineExceeded,
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    PromptTooLong,
    RequestTooLarge,
)
from loragen.wire import CompileReply, CompileRequest


class Generator(Protocol):
    """Compiles prompts."""

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt.

        Raises:
            PromptTooLong: longer than the generator's context.
            GeneratorUnavailable: it does not answer.
            Overloaded: its queue is full.
            DeadlineExceeded: it took too long.
            LoragenError: it failed.
        """

    async def close(self) -> None:
        """Give back the connections."""


class HttpGenerator:
    """The router service behind `url`; after a failed connection it is left alone for a moment."""

    def __init__(
        self, url: str, *, secret: str | None, timeout_seconds: float, cooldown_seconds: float = 1.0
    ) -> None:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        timeout = httpx.Timeout(timeout_seconds, connect=2.0)
        # Idle connections go before the proxy closes them under a request.
        limits = httpx.Limits(keepalive_expiry=2.0)
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=timeout, limits=limits
        )
        self._cooldown = cooldown_seconds
        self._retry_at = 0.0

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt; see `Generator.compile` for what it raises."""
        if time.monotonic() < self._retry_at:
            raise GeneratorUnavailable("the generator does not answer", retry_after=self._cooldown)
        async with self._mapped():
            response = await self._client.post(
                "/compile", json=request.model_dump(exclude_defaults=True)
            )
        if response.status_code == 200:
            try:
                return CompileReply.model_validate_json(response.content)
            except ValidationError as error:
                raise LoragenError("the generator gave an unreadable reply") from error
        raise _refusal(response)

    async def close(self) -> None:
        """Give back the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _mapped(self) -> AsyncIterator[None]:
        """The one place where httpx' errors become ours."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            self._retry_at = time.monotonic() + self._cooldown
            raise GeneratorUnavailable("the generator does not answer") from error
        except httpx.TimeoutException as error:
            raise DeadlineExceeded("compiling the prompt took too long") from error
        except httpx.HTTPError as error:
            self._retry_at = time.monotonic() + self._cooldown
            raise GeneratorUnavailable("the generator does not answer") from error


def _refusal(response: httpx.Response) -> LoragenError:
    try:
        fields = response.json()["error"]
        code, message = str(fields["code"]), str(fields["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "", f"the generator answered {response.status_code}"
    if code in (PromptTooLong.code, RequestTooLarge.code):
        return PromptTooLong(message)
    if code == DeadlineExceeded.code:
        return DeadlineExceeded(message)
    if code == Overloaded.code:
        return Overloaded(message, retry_after=1.0)
    if response.status_code in (502, 503, 504) or code == GeneratorUnavailable.code:
        return GeneratorUnavailable("the generator is not ready")
    return LoragenError(message)
