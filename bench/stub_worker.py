"""`python -m bench.stub_worker`: what a worker says over HTTP, with no model behind it.

It answers at once and the same to everybody, as vLLM spells it, so that what stands before it is
what takes time. A request with `max_tokens` T has T tokens; a streamed one an event for each, with
a pause of `--step-ms` between them where a worker would compute.
"""

import asyncio
import json
from typing import Annotated, Any, Final

import typer
import uvicorn
from starlette.types import Receive, Scope, Send

from loragen.wire import REQUEST_ID_HEADER, WorkerInfo

POOL_ID: Final = "ab" * 32
TEMPLATE_HASH: Final = "cd" * 32
MAX_MODEL_LEN: Final = 1_024
_PROMPT_TOKENS: Final = 24
_NO_ID: Final = b"8f14e45fceea167a5a36dedd4bea2543"
"""Of a request that brings none."""


def main(
    port: Annotated[int, typer.Option(help="Port on loopback.")],
    step_ms: Annotated[float, typer.Option(help="Pause between two tokens of a stream.")] = 0.0,
) -> None:
    """Serve until a signal."""
    worker = StubWorker(step_ms / 1_000)
    uvicorn.run(worker, host="127.0.0.1", port=port, log_config=None, access_log=False)


class StubWorker:
    """The ASGI application."""

    def __init__(self, step_seconds: float) -> None:
        self._step = step_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = await _body(receive)
        if scope["path"] == "/v1/chat/completions":
            await self._chat(json.loads(body), _id(scope), send)
        elif scope["path"] == "/loragen":
            await _whole(send, _info())
        else:
            await _whole(send, b"")

    async def _chat(self, request: dict[str, Any], answer_id: str, send: Send) -> None:
        tokens = request["max_tokens"]
        if not request.get("stream"):
            await _whole(send, _answer(answer_id, tokens))
            return
        await send(_start(b"text/event-stream; charset=utf-8"))
        await send(_part(_event(answer_id, {"role": "assistant", "content": ""}), more=True))
        for number in range(tokens):
            if self._step:
                await asyncio.sleep(self._step)
            is_last = number + 1 == tokens
            event = _event(answer_id, {"content": " token"}, is_last=is_last)
            await send(_part(event, more=True))
        if (request.get("stream_options") or {}).get("include_usage"):
            await send(_part(_chunk(answer_id, [], usage=_usage(tokens)), more=True))
        await send(_part(b"data: [DONE]\n\n", more=False))


def _info() -> bytes:
    info = WorkerInfo(
        edge_model="demo",
        pool_id=POOL_ID,
        template_hash=TEMPLATE_HASH,
        backend="gate",
        max_model_len=MAX_MODEL_LEN,
    )
    return info.model_dump_json().encode()


def _id(scope: Scope) -> str:
    given: bytes = dict(scope["headers"]).get(REQUEST_ID_HEADER.encode(), _NO_ID)
    return f"chatcmpl-{given.decode()}"


def _answer(answer_id: str, tokens: int) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": " token" * tokens}
    message |= {"refusal": None, "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    body = {
        "id": answer_id,
        "object": "chat.completion",
        "created": 1,
        "model": "demo",
        "choices": [choice],
        "usage": _usage(tokens),
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _usage(tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": _PROMPT_TOKENS,
        "total_tokens": _PROMPT_TOKENS + tokens,
        "completion_tokens": tokens,
        "prompt_tokens_details": None,
    }


def _event(answer_id: str, delta: dict[str, str], *, is_last: bool = False) -> bytes:
    reason = "length" if is_last else None
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _chunk(answer_id, [choice])


def _chunk(answer_id: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
    body = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "demo",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _whole(send: Send, body: bytes) -> None:
    await send(_start(b"application/json", (b"content-length", str(len(body)).encode())))
    await send(_part(body, more=False))


def _start(content_type: bytes, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    all_headers = [(b"content-type", content_type), *headers]
    return {"type": "http.response.start", "status": 200, "headers": all_headers}


def _part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


if __name__ == "__main__":
    typer.run(main)
