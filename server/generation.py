"""`/v1/chat/completions` and `/v1/completions`: a worker's answers, with or without a task."""

import asyncio
import functools
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from loragen.background import end
from loragen.errors import DeadlineExceeded, LoragenError, RecipeMismatch
from server.answer import Stopwatch, complete, refusal, relay
from server.conversation import Conversation, is_to_be_remembered, overheard, replies
from server.dispatch import Trail
from server.http_errors import CLIENT_CLOSED_REQUEST
from server.keep_alive import KeepAlive
from server.memory import Resolved
from server.plan import Plan, plan
from server.reference import TaskReference
from server.requests import ChatRequest, CompletionRequest
from server.resolution import resolve_request
from server.services import Services, services, visit
from server.shadow import live_message
from server.tally import Estimate, Tally, asks_for_usage, counted_body, tallied
from server.visit import Visit

router = APIRouter(prefix="/v1", tags=["generation"])

ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {}},
        }
    }
}
"""What the calls answer, for the OpenAPI document: whole, or with `stream` as events."""

SSE_HEADERS: Final = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}


class HeldStream(StreamingResponse):
    """A stream that gives its worker back however it ends, also when it never begins."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        held: AsyncExitStack,
        headers: Any,
        *,
        keep_alive_seconds: float,
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self.events = events
        self._held = held
        self._keep_alive_seconds = keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        steady = KeepAlive(send, seconds=self._keep_alive_seconds)
        async with self._held, steady.running():
            await super().__call__(scope, receive, steady)


@router.post("/chat/completions", responses=ANSWERS)
async def chat_completions(
    request: ChatRequest,
    http: Request,
    parts: Annotated[Services, Depends(services)],
    visit: Annotated[Visit, Depends(visit)],
    x_task_id: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """Answer a conversation (https://platform.openai.com/docs/api-reference/chat)."""
    work = serve(request, parts, visit, x_task_id or [])
    return await while_connected(http, work, seconds=parts.settings.request_timeout_seconds)


@router.post("/completions", responses=ANSWERS)
async def completions(
    request: CompletionRequest,
    http: Request,
    parts: Annotated[Services, Depends(services)],
    visit: Annotated[Visit, Depends(visit)],
    x_task_id: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """Continue a text (https://platform.openai.com/docs/api-reference/completions)."""
    work = serve(request, parts, visit, x_task_id or [])
    return await while_connected(http, work, seconds=parts.settings.request_timeout_seconds)


async def serve(
    request: ChatRequest | CompletionRequest, parts: Services, visit: Visit, headers: list[str]
) -> Response:
    """Answer a request of any route; `headers` are its `X-Task-Id`."""
    trail = Trail(visit.tenant.id)
    try:
        return await _serve(request, parts, visit, headers, trail)
    except LoragenError:
        visit.tally.void()
        raise
    except asyncio.CancelledError:
        if not trail.is_at_worker:
            visit.tally.void()
        raise


async def _serve(
    request: ChatRequest | CompletionRequest,
    parts: Services,
    visit: Visit,
    headers: list[str],
    trail: Trail,
) -> Response:
    started = time.monotonic()
    reference = TaskReference.parse(model=request.model, task_id=request.task_id, headers=headers)
    model = reference.edge_model
    context = parts.dispatcher.info(model).max_model_len
    resolution = await resolve_request(request, parts, visit.tenant.id, reference)
    planned = plan(request, model, resolution)
    if resolution.task is not None and planned.provenance.mode in ("compiled", "prompt"):
        message = live_message(request, is_written=resolution.is_written)
        visit.live = None if message is None else (resolution.task, message)
    estimate = Estimate.of(planned.body, max_model_len=context)
    await visit.reserve(estimate)
    stamps = {
        # In every mode, or one tenant's wait would tell what another has sent.
        "cache_salt": parts.keys(visit.tenant.id).cache_salt,
        "priority": await parts.precedence.take(visit, model, estimate),
    }
    send = functools.partial(
        _send,
        request,
        parts,
        visit.tally,
        stamps=stamps,
        conversation=resolution.conversation,
        trail=trail,
    )
    try:
        return await send(planned, started=started)
    except RecipeMismatch:
        assert resolution.task is not None
    # No worker holds the pool that the recipe was compiled for: compile for the pool of now.
    refused = Resolved(resolution.task, resolution.recipe)
    resolved = await parts.resolver.recompile(refused)
    try:
        return await send(plan(request, model, resolution.using(resolved)), started=started)
    except RecipeMismatch:
        resolved = parts.resolver.set_aside(resolved.task, "worker_pool_mismatch")
    return await send(plan(request, model, resolution.using(resolved)), started=started)


async def _send(
    request: ChatRequest | CompletionRequest,
    parts: Services,
    tally: Tally,
    planned: Plan,
    *,
    stamps: Mapping[str, Any],
    conversation: Conversation | None,
    trail: Trail,
    started: float,
) -> Response:
    model = planned.body["model"]
    watch = Stopwatch(model, planned.provenance.mode, started=started)
    headers = planned.provenance.headers()
    if conversation is None or not is_to_be_remembered(planned.provenance.fallback_reason):
        remember = None
    else:
        remember = functools.partial(parts.conversations.remember, conversation)
    body = {**counted_body(planned.body), **stamps}
    request_id = uuid.uuid4().hex  # not the client's: two of those may be the same
    async with AsyncExitStack() as stack:
        answer = await stack.enter_async_context(
            parts.dispatcher.send(
                model,
                planned.path,
                body,
                recipe=planned.recipe,
                trail=trail,
                request_id=request_id,
            )
        )
        if answer.status_code != 200:
            raise refusal(answer, has_recipe=planned.recipe is not None)
        planned.provenance.count()
        tally.served = (model, planned.provenance)
        tally.most_prompt_tokens = planned.most_prompt_tokens
        if request.stream:
            events = tallied(
                relay(answer.aiter_raw(), planned.provenance, watch, request_id=request_id),
                tally,
                shows_usage=asks_for_usage(planned.body),
            )
            if remember is not None:
                events = overheard(events, remember)
            return HeldStream(
                events,
                stack.pop_all(),
                {**SSE_HEADERS, **headers},
                keep_alive_seconds=parts.settings.keep_alive_seconds,
            )
        await answer.aread()
        body = complete(answer, planned.provenance, request_id=request_id)
    tally.read(body.get("usage"))
    if remember is not None:
        await remember(replies(body))
    watch.done()
    return JSONResponse(body, headers=headers)


async def while_connected(
    http: Request, work: Coroutine[Any, Any, Response], *, seconds: float
) -> Response:
    """Return the response, or give the work up when nobody waits for it any more.

    Giving up closes the connection to the worker, which ends the generation there.

    Raises:
        DeadlineExceeded: the response has not begun within so many seconds.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(http))
    try:
        await asyncio.wait({working, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if not leaving.done():
            raise DeadlineExceeded(f"no answer within {seconds:g} seconds")
    finally:
        await end([working, leaving])
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _disconnect(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
