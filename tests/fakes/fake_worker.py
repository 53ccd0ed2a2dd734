"""A worker without a model: the HTTP surface of ours, with answers that say what arrived.

Tokens are words. An answer reads `[recipe <id>|none] [system <text>|none] <last user text>`, so a
test sees whether the prompt or the recipe came with a request.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from loragen.errors import (
    InvalidRequest,
    LoragenError,
    RecipeInvalid,
    Unauthorized,
    Unavailable,
)
from loragen.recipe import Recipe
from loragen.wire import (
    COMPILED_SWITCH,
    RECIPE_FIELD,
    RECIPE_HEADER,
    REQUEST_ID_HEADER,
    WorkerInfo,
)

POOL_ID = "ab" * 32
TEMPLATE_HASH = "cd" * 32
LAYERS, LINEARS, EXPERTS = 2, 3, 4
ANSWER_ID = b"ANSWER-ID"


class Refusal(Exception):
    """An error in the shape of vLLM, whose `code` is the status."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {"message": message, "type": kind, "param": None, "code": status},
        }


@dataclass(frozen=True)
class Seen:
    """A generation request as it arrived; `body` without what gateways put into every one."""

    path: str
    body: dict[str, Any]
    recipe_id: str | None
    in_header: bool
    cache_salt: str | None
    priority: int


@dataclass
class FakeWorker:
    """State and knobs of one fake worker; `app` serves it."""

    edge_model: str = "demo"
    pool_id: str = POOL_ID
    key: str | None = "worker-key"
    max_model_len: int = 200
    max_words: int = 64
    """Longest answer."""

    fail_status: int | None = None
    """Answer generation with this status."""
    die_after: int | None = None
    """Cut a stream after that many chunks."""
    error_after: int | None = None
    """Send vLLM's error event after that many chunks of a stream."""
    raw_answer: bytes | None = None
    """Answer generation with these bytes; ANSWER_ID in them becomes the answer's id."""
    mixes_up: bool = False
    """Answer as if another had asked."""
    tail: str = ""
    """End of every answer's text."""
    hold: bool = False
    """Hold generation until False."""
    hold_after: int | None = None
    """Hold a stream after that many chunks, until None."""
    is_draining: bool = False
    """Refuse what is new, finish what runs."""
    pause_seconds: float = 0.0
    """Between the chunks of a stream."""
    printed: str = ""
    """What its template prints beside every conversation, as a sabotaged one does."""
    layers: int = LAYERS
    """Of the pool; recipes of another shape are refused."""

    seen: list[Seen] = field(default_factory=list)
    refused: int = 0
    """Recipes of another pool that came."""
    streamed: int = 0
    """Chunks of streams that left."""
    counted: int = 0
    """Times that tokens were counted."""
    abandoned: int = 0
    """Generation requests whose client left before the answer."""
    held: int = 0

    def reset(self) -> None:
        """Forget what was seen and told."""
        for knob in fields(self):
            default = knob.default if knob.default is not MISSING else []
            setattr(self, knob.name, default)

    @property
    def app(self) -> Starlette:
        """The worker's HTTP server."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/loragen", self._info),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/v1/chat/completions", self._generate, methods=["POST"]),
                Route("/v1/completions", self._generate, methods=["POST"]),
            ],
            exception_handlers={Refusal: _on_refusal, LoragenError: _on_own},
        )

    async def _health(self, request: Request) -> Response:
        return Response(status_code=503 if self.is_draining else 200)

    async def _info(self, request: Request) -> Response:
        self._authorise(request)
        info = WorkerInfo(
            edge_model=self.edge_model,
            pool_id=self.pool_id,
            template_hash=TEMPLATE_HASH,
            backend="gate",
            max_model_len=self.max_model_len,
        )
        return JSONResponse(info.model_dump())

    async def _tokenize(self, request: Request) -> Response:
        self._authorise(request)
        body = await request.json()
        self.counted += 1
        return JSONResponse({"count": _count_chat(body), "max_model_len": self.max_model_len})

    async def _generate(self, request: Request) -> Response:
        self._authorise(request)
        if self.is_draining:
            raise Unavailable("the worker is shutting down", retry_after=1.0)
        body = await request.json()
        recipe_id, in_header = self._recipe(request, body)
        stamps = body.pop("cache_salt", None), body.pop("priority", 0)
        self.seen.append(Seen(request.url.path, body, recipe_id, in_header, *stamps))
        await self._wait(request, 0)
        if self.fail_status is not None:
            raise Refusal(self.fail_status, "as the test wants", "InternalServerError")
        if self.raw_answer is not None:
            raw = self.raw_answer.replace(ANSWER_ID, _answer_id(request).encode())
            return Response(raw, media_type="application/json")
        tokens = self._check(body)
        answer = _answer(body, recipe_id) + self.tail
        words = answer.split(" ")[: min(body.get("max_tokens") or self.max_words, self.max_words)]
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": len(words),
            "total_tokens": tokens + len(words),
        }
        if body.get("stream"):
            events = self._stream(request, body, words, usage)
            return StreamingResponse(events, media_type="text/event-stream")
        choices = [_choice(request, i, " ".join(words)) for i in range(body.get("n") or 1)]
        return JSONResponse({**self._envelope(request, body), "choices": choices, "usage": usage})

    async def _stream(
        self, request: Request, body: dict[str, Any], words: list[str], usage: dict[str, int]
    ) -> AsyncIterator[bytes]:
        envelope = {**self._envelope(request, body), "object": "chat.completion.chunk"}
        for position, word in enumerate(words):
            if position == self.die_after:
                raise ConnectionAbortedError
            if position == self.error_after:
                yield _event(Refusal(500, "engine died: secret detail").body)
                yield b"data: [DONE]\n\n"
                return
            text = word if position == 0 else " " + word
            if request.url.path.endswith("/chat/completions"):
                choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            else:
                choice = {"index": 0, "text": text, "finish_reason": None}
            yield _event({**envelope, "choices": [choice]})
            self.streamed += 1
            await self._wait(request, position + 1)
            await asyncio.sleep(self.pause_seconds)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield _event({**envelope, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"

    def _envelope(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion" if _is_chat(request) else "text_completion"
        answer_id = "cmpl-another" if self.mixes_up else _answer_id(request)
        return {"id": answer_id, "object": kind, "created": 1, "model": body["model"]}

    async def _wait(self, request: Request, chunks: int) -> None:
        """Hold the answer while told to, and notice a client that leaves."""
        self.held += 1
        try:
            while self.hold or (chunks and chunks == self.hold_after):
                if await request.is_disconnected():
                    raise Refusal(499, "the client left")
                await asyncio.sleep(0.005)
        except (asyncio.CancelledError, Refusal):
            self.abandoned += 1
            raise
        finally:
            self.held -= 1

    def _authorise(self, request: Request) -> None:
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            raise Unauthorized("wrong or missing worker key")

    def _recipe(self, request: Request, body: dict[str, Any]) -> tuple[str | None, bool]:
        in_header = request.headers.get(RECIPE_HEADER)
        in_body = body.pop(RECIPE_FIELD, None)
        if in_header is not None and in_body is not None:
            raise InvalidRequest("give the recipe once", param=RECIPE_FIELD)
        text = in_body if in_header is None else in_header
        if text is None:
            return None, False
        if not isinstance(text, str):
            raise RecipeInvalid("not text", param=RECIPE_FIELD)
        recipe = Recipe.from_text(text)
        shape = recipe.gates.shape
        self.refused += recipe.pool_id != self.pool_id
        recipe.require_pool(self.pool_id, layers=self.layers, linears=LINEARS, experts=shape[2])
        return recipe.id, in_header is not None

    def _check(self, body: dict[str, Any]) -> int:
        """Validate as vLLM does and return the number of prompt tokens."""
        if body["model"] != self.edge_model:
            raise Refusal(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        if body.get("stream_options") and not body.get("stream"):
            raise Refusal(400, "Stream options can only be defined when `stream=True`.")
        if (body.get("temperature") or 0) < 0:
            raise Refusal(400, "temperature must be non-negative, got -1.0.")
        tokens = _count_chat(body) if "messages" in body else _count_text(body["prompt"])
        tokens += len(self.printed.split())
        if tokens + (body.get("max_tokens") or 1) > self.max_model_len:
            raise Refusal(
                400, f"This model's maximum context length is {self.max_model_len} tokens."
            )
        return tokens


def _count(messages: list[dict[str, Any]]) -> int:
    return 1 + sum(2 + len(str(message.get("content") or "").split()) for message in messages)


def _count_chat(body: dict[str, Any]) -> int:
    """Count messages, and one more for every word of the tools' JSON where they are printed."""
    is_compiled = (body.get("chat_template_kwargs") or {}).get(COMPILED_SWITCH, False)
    tools = [] if is_compiled else body.get("tools") or []
    return _count(body["messages"]) + sum(map(word_count, tools))


def word_count(tool: dict[str, Any]) -> int:
    """Return how many tokens a tool has: its JSON's words."""
    return len(json.dumps(tool).split())


def _count_text(prompt: Any) -> int:
    match prompt:
        case str():
            return len(prompt.split())
        case list():
            return sum(map(_count_text, prompt))
        case _:
            return 1


def _answer(body: dict[str, Any], recipe_id: str | None) -> str:
    if "prompt" in body:
        return f"[recipe {recipe_id or 'none'}] {body['prompt']}"
    systems = [m["content"] for m in body["messages"] if m["role"] == "system"]
    users = [m["content"] for m in body["messages"] if m["role"] == "user"]
    system = systems[0] if systems else "none"
    return f"[recipe {recipe_id or 'none'}] [system {system}] {users[-1] if users else ''}"


def _is_chat(request: Request) -> bool:
    return request.url.path.endswith("/chat/completions")


def _answer_id(request: Request) -> str:
    """Return the id that vLLM gives an answer: what its request brings, or one of its own."""
    kind = "chatcmpl" if _is_chat(request) else "cmpl"
    return f"{kind}-{request.headers.get(REQUEST_ID_HEADER, '1')}"


def _choice(request: Request, index: int, text: str) -> dict[str, Any]:
    if request.url.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": text}
        return {"index": index, "message": message, "finish_reason": "stop"}
    return {"index": index, "text": text, "finish_reason": "stop"}


def _event(payload: dict[str, Any]) -> bytes:
    # As pydantic writes it: compact, and not escaped beyond what JSON demands.
    text = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body, status_code=error.status)


def _on_own(request: Request, error: Exception) -> Response:
    assert isinstance(error, LoragenError)
    return JSONResponse(error.body(), status_code=error.status)
