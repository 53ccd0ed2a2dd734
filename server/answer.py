"""A worker's answer on its way to the client: our usage added, its errors in the OpenAI shape."""

import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import httpx
from pydantic import BaseModel, ConfigDict

from loragen import metrics
from loragen.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LoragenError,
    Overloaded,
    PromptTooLong,
    RecipeInvalid,
    RecipeMismatch,
    WorkerUnavailable,
)
from loragen.task import FallbackReason

logger = logging.getLogger(__name__)

Mode = Literal["compiled", "prompt", "hybrid", "base"]

_ABORTED: Final = b'"finish_reason":"abort"'
"""How vLLM ends an answer when it has to end itself; quotes in a text would be escaped."""
_NO_TEXT: Final = b'"choices":[]'
"""In the chunk that brings the usage, which is no token of the answer."""
_RECIPE_CODES: Final = frozenset({RecipeInvalid.code, RecipeMismatch.code})
_CONTEXT_HINTS: Final = ("maximum context length", "max_model_len", "longer than the maximum")


class Provenance(BaseModel):
    """How a request was served: `usage.loragen`, and the `x-loragen-*` headers."""

    model_config = ConfigDict(frozen=True)

    mode: Mode
    task_id: str | None = None
    recipe_id: str | None = None
    saved_prompt_tokens: int = 0
    fallback_reason: FallbackReason | None = None

    def headers(self) -> dict[str, str]:
        """Return the response headers that say the same."""
        named = {
            "x-loragen-mode": self.mode,
            "x-loragen-task": self.task_id,
            "x-loragen-recipe": self.recipe_id,
            "x-loragen-fallback-reason": self.fallback_reason,
        }
        return {name: value for name, value in named.items() if value is not None}

    def usage(self) -> dict[str, Any]:
        """Return the `usage.loragen` object."""
        return self.model_dump(exclude={"fallback_reason"})

    def count(self) -> None:
        """Count a request that a worker has begun to answer this way."""
        metrics.PROMPT_TOKENS_SAVED.inc(self.saved_prompt_tokens)
        if self.fallback_reason is not None:
            metrics.FALLBACKS.labels(self.fallback_reason).inc()


class Stopwatch:
    """Measures one request for the latency histograms."""

    def __init__(self, model: str, mode: Mode, *, started: float) -> None:
        self._labels = (model, mode)
        # Looked up once, because every token is counted in it.
        self._next_token = metrics.INTER_TOKEN_LATENCY_SECONDS.labels(*self._labels)
        self._started = started
        self._last: float | None = None

    def chunk(self) -> None:
        """Note that a chunk of the answer passed."""
        now = time.monotonic()
        if self._last is None:
            metrics.TIME_TO_FIRST_TOKEN_SECONDS.labels(*self._labels).observe(now - self._started)
        else:
            self._next_token.observe(now - self._last)
        self._last = now

    def done(self) -> None:
        """Note that the answer is complete."""
        elapsed = time.monotonic() - self._started
        metrics.E2E_REQUEST_LATENCY_SECONDS.labels(*self._labels).observe(elapsed)


def with_usage(answer: dict[str, Any], provenance: Provenance) -> dict[str, Any]:
    """Return a complete answer with our usage in it."""
    if isinstance(answer.get("usage"), dict):
        answer["usage"]["loragen"] = provenance.usage()
    return answer


def complete(
    response: httpx.Response, provenance: Provenance, *, request_id: str
) -> dict[str, Any]:
    """Return a worker's whole answer to a request with our usage in it.

    Raises:
        WorkerUnavailable: it is not an answer, only its beginning, or one to another request.
    """
    try:
        answer = response.json()
    except ValueError as error:
        raise WorkerUnavailable("the worker's answer cannot be read") from error
    if not isinstance(answer, dict):
        raise WorkerUnavailable("the worker's answer cannot be read")
    if _ABORTED in response.content:
        raise WorkerUnavailable("the worker ended while answering", retry_after=1.0)
    if not str(answer.get("id")).endswith(request_id):
        raise _misdirected()
    return with_usage(answer, provenance)


async def relay(
    chunks: AsyncIterator[bytes], provenance: Provenance, watch: Stopwatch, *, request_id: str
) -> AsyncIterator[bytes]:
    """Yield a worker's event stream to a request with our usage in its usage chunk.

    A failure half-way ends the stream with one error event and without `[DONE]`, and so does an
    event of another request's stream.
    """
    is_done, mark = False, request_id.encode()
    lost: LoragenError = WorkerUnavailable("the worker was lost while answering")
    try:
        async for event in _events(chunks):
            if is_done:
                continue  # to its end, or the connection could not be used again
            if event == b"[DONE]":
                is_done = True
            elif (failure := _failure(event, mark)) is not None:
                lost = failure
                break
            else:
                if _NO_TEXT not in event:
                    watch.chunk()
                if b'"usage":{' in event:
                    event = _json(with_usage(json.loads(event), provenance))
            yield b"data: " + event + b"\n\n"
    except httpx.TimeoutException:
        lost = DeadlineExceeded("the worker took too long to go on")
    except (httpx.HTTPError, ValueError) as error:
        logger.warning("stream broke off", extra={"error": type(error).__name__})
    if is_done:
        watch.done()
    else:
        yield b"data: " + _json(lost.body()) + b"\n\n"


def _failure(event: bytes, mark: bytes) -> LoragenError | None:
    """Return why an event is not to be passed on, if it is not."""
    if event.startswith(b'{"error"') or _ABORTED in event:
        return WorkerUnavailable("the worker failed while answering")
    return None if mark in event else _misdirected()


def _misdirected() -> WorkerUnavailable:
    metrics.MISDIRECTED.labels("worker").inc()
    logger.error("a worker's answer is to another request")
    return WorkerUnavailable("the worker's answer was to another request", retry_after=1.0)


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of each event.

    Lines end at LF alone: the splitters of str also end them at U+0085 and U+2028, which JSON may
    hold unescaped and models do generate.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip(b" \r")


def refusal(response: httpx.Response, *, has_recipe: bool = False) -> LoragenError:
    """Return a worker's refusal as one of our errors.

    The worker has checked values that the gateway passes on, so its 400 is the client's.
    """
    fields = _error_fields(response)
    message = str(fields.get("message") or f"the worker answered {response.status_code}")
    match response.status_code:
        case 400 | 409 if has_recipe and fields.get("code") in _RECIPE_CODES:
            # The client sent no recipe, so this is between us and the worker.
            return RecipeMismatch(message)
        case 400 | 422 if any(hint in message for hint in _CONTEXT_HINTS):
            return PromptTooLong(message, param="messages")
        case 400 | 422:
            param = fields.get("param")
            return InvalidRequest(message, param=param if isinstance(param, str) else None)
        case 429:
            return Overloaded("the workers are busy", retry_after=1.0)
        case _:
            return WorkerUnavailable("the worker refused the request", retry_after=1.0)


def _error_fields(response: httpx.Response) -> dict[str, Any]:
    try:
        fields = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _json(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()
