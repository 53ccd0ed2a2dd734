"""`/v1/chat/completions` and `/v1/completions`: a worker's answers, with or without a task."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from loragen.errors import InvalidRequest, RecipeMismatch
from server.answer import Stopwatch, refusal, relay, with_usage
from server.memory import Resolved
from server.plan import Plan, plan
from server.reference import TaskReference, find_task_id
from server.requests import ChatRequest, CompletionRequest
from server.services import Services, services, tenant

router = APIRouter(prefix="/v1", tags=["generation"])

SSE_HEADERS: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}


class HeldStream(StreamingResponse):
    """A stream that gives its worker back however it ends, also when it never begins."""

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack, headers: Any) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        async with self._held:
            await super().__call__(scope, receive, send)


@router.post("/chat/completions")
async def chat_completions(
    request: ChatRequest,
    parts: Annotated[Services, Depends(services)],
    owner: Annotated[str, Depends(tenant)],
    x_task_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Answer a conversation (https://platform.openai.com/docs/api-reference/chat)."""
    return await _serve(request, parts, owner, x_task_id)


@router.post("/completions")
async def completions(
    request: CompletionRequest,
    parts: Annotated[Services, Depends(services)],
    owner: Annotated[str, Depends(tenant)],
    x_task_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Continue a text (https://platform.openai.com/docs/api-reference/completions)."""
    return await _serve(request, parts, owner, x_task_id)


async def _serve(
    request: ChatRequest | CompletionRequest, parts: Services, owner: str, header: str | None
) -> Response:
    started = time.monotonic()
    reference = TaskReference.parse(model=request.model, task_id=request.task_id, header=header)
    model = reference.edge_model
    parts.dispatcher.info(model)
    resolved = await _resolve(parts, owner, reference)
    try:
        return await _send(request, parts, plan(request, model, resolved), started)
    except RecipeMismatch:
        assert resolved is not None
    # The worker holds another pool than the recipe was compiled for: compile for the pool of now.
    resolved = await parts.resolver.recompile(resolved.task)
    try:
        return await _send(request, parts, plan(request, model, resolved), started)
    except RecipeMismatch:
        unmatched = resolved.task.model_copy(update={"fallback_reason": "worker_pool_mismatch"})
    return await _send(request, parts, plan(request, model, Resolved(unmatched, None)), started)


async def _resolve(parts: Services, owner: str, reference: TaskReference) -> Resolved | None:
    if reference.task is None:
        return None
    task_id = await find_task_id(parts.store, owner, reference.task)
    resolved = await parts.resolver.resolve(owner, task_id)
    if resolved.task.edge_model != reference.edge_model:
        raise InvalidRequest(
            f"task {task_id!r} is of model {resolved.task.edge_model!r}", param="model"
        )
    return resolved


async def _send(
    request: ChatRequest | CompletionRequest, parts: Services, planned: Plan, started: float
) -> Response:
    model = planned.body["model"]
    watch = Stopwatch(model, planned.provenance.mode, started=started)
    headers = planned.provenance.headers()
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(
            parts.dispatcher.send(model, planned.path, planned.body, recipe=planned.recipe)
        )
        if answer.status_code != 200:
            raise refusal(answer)
        if request.stream:
            events = relay(answer.aiter_lines(), planned.provenance, watch)
            kept = with_keep_alive(events, parts.settings.keep_alive_seconds)
            return HeldStream(kept, stack.pop_all(), {**SSE_HEADERS, **headers})
        await answer.aread()
        body = with_usage(answer.json(), planned.provenance)
    watch.done()
    return JSONResponse(body, headers=headers)


async def with_keep_alive(events: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """Yield the events, and an SSE comment after every silence of `seconds`."""
    waiting: asyncio.Future[bytes] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({waiting}, timeout=seconds)
            if not done:
                yield b": keep-alive\n\n"
                continue
            try:
                event = waiting.result()
            except StopAsyncIteration:
                return
            waiting = None
            yield event
    finally:
        if waiting is not None:
            waiting.cancel()
