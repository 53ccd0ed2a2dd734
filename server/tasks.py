"""`/v1/tasks`: register a system prompt and tools, look at them, delete them."""

import asyncio
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from loragen.errors import Conflict, InvalidRequest, PromptTooLong, TaskNotFound
from loragen.task import Task, TaskRecord
from loragen.tools import canonical_tools
from server.memory import Resolved
from server.requests import CreateTaskRequest, PageQuery
from server.services import Services, services, tenant

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

_SETTINGS: Final = frozenset({"name", "policy", "min_fidelity"})
_EMPTY_TURN: Final = {"role": "user", "content": ""}

Parts = Annotated[Services, Depends(services)]
Owner = Annotated[str, Depends(tenant)]


@router.post("", status_code=201)
async def create_task(request: CreateTaskRequest, parts: Parts, owner: Owner) -> Response:
    """Register a prompt and tools: 201 when ready, 202 while it compiles, 200 when it existed."""
    _check_size(request, parts.settings.max_prompt_bytes)
    task = await _registered(request, parts, owner)
    if task is not None:
        resolved = await _finish(task, parts, request.wait)
        return _answer(200, resolved, cached=True)
    if not await parts.store.create(task := await _describe(request, parts, owner)):
        return await create_task(request, parts, owner)  # another was first with this prompt
    parts.resolver.forget(owner, task.id)  # memory holds what was before a delete, if anything
    resolved = await _finish(task, parts, request.wait)
    await _refuse_unservable(resolved, parts)
    status = 202 if resolved.task.status == "compiling" else 201
    return _answer(status, resolved, cached=False)


@router.get("")
async def list_tasks(
    parts: Parts, owner: Owner, query: Annotated[PageQuery, Query()]
) -> dict[str, Any]:
    """Return a page of the tenant's tasks."""
    page = await parts.store.page(
        owner, limit=query.limit, after=query.after, newest_first=query.order == "desc"
    )
    return {
        "object": "list",
        "data": [task_object(task) for task in page.tasks],
        "first_id": page.tasks[0].id if page.tasks else None,
        "last_id": page.tasks[-1].id if page.tasks else None,
        "has_more": page.has_more,
    }


@router.get("/{task_id}")
async def get_task(task_id: str, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Return one task."""
    return task_object(await _require(parts, owner, task_id))


@router.delete("/{task_id}")
async def delete_task(task_id: str, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Delete a task with its recipe."""
    task = await _require(parts, owner, task_id)
    if not await parts.store.delete(owner, task_id):
        raise TaskNotFound(f"no task {task_id!r}", param="task_id")
    await parts.resolver.invalidate(task)
    if task.recipe is not None:
        await parts.store.delete_recipe(parts.resolver.recipe_key(task, task.recipe))
    return {"id": task_id, "object": "task.deleted", "deleted": True}


def task_object(task: TaskRecord) -> dict[str, Any]:
    """Return a task as the API shows it; the prompt itself is never shown."""
    recipe = task.recipe
    return {
        "id": task.id,
        "object": "task",
        "name": task.name,
        "model": task.edge_model,
        "status": task.status,
        "fallback_reason": task.fallback_reason,
        "created_at": task.created_at,
        "prompt_tokens": task.prompt_tokens,
        "policy": task.policy.model_dump(),
        "min_fidelity": task.min_fidelity,
        "recipe": recipe and {"id": recipe.id, "pool_id": recipe.pool_id, "bytes": recipe.bytes},
        "fidelity": task.fidelity,
        "measured": task.fidelity is not None,
        "compile_seconds": task.compile_seconds,
    }


def _check_size(request: CreateTaskRequest, limit: int) -> None:
    tools = canonical_tools(request.tools).encode()
    if len(request.system_prompt.encode()) + len(tools) > limit:
        what = "system_prompt and tools together are" if tools else "system_prompt is"
        raise InvalidRequest(f"{what} larger than {limit} bytes", param="system_prompt")


def _task_id(request: CreateTaskRequest, parts: Services, owner: str) -> str:
    return parts.keys(owner).task_id(
        edge_model=request.model,
        prompt=request.system_prompt,
        tools=canonical_tools(request.tools),
    )


async def _require(parts: Services, owner: str, task_id: str) -> Task:
    task = await parts.store.get(owner, task_id)
    if task is None:
        raise TaskNotFound(f"no task {task_id!r}", param="task_id")
    return task


async def _registered(request: CreateTaskRequest, parts: Services, owner: str) -> Task | None:
    """Return the task if this tenant has it.

    Raises:
        Conflict: it has, with other settings than the request gives; tasks do not change.
    """
    task_id = _task_id(request, parts, owner)
    task = await parts.store.get(owner, task_id)
    if task is None:
        return None
    for field in sorted(_SETTINGS & request.model_fields_set):
        given, kept = getattr(request, field), getattr(task, field)
        if given is not None and given != kept:
            raise Conflict(f"this prompt is task {task_id!r}, with another {field}", param=field)
    return task


async def _describe(request: CreateTaskRequest, parts: Services, owner: str) -> Task:
    parts.dispatcher.info(request.model)
    return Task(
        id=_task_id(request, parts, owner),
        tenant=owner,
        edge_model=request.model,
        prompt=request.system_prompt,
        tools=request.tools,
        name=request.name,
        created_at=int(time.time()),
        prompt_tokens=await _count_prompt(parts, request),
        policy=request.policy,
        min_fidelity=request.min_fidelity,
    )


async def _count_prompt(parts: Services, request: CreateTaskRequest) -> int:
    """Return how many tokens prompt and tools add to a conversation."""
    system = {"role": "system", "content": request.system_prompt}
    messages = [system, _EMPTY_TURN] if request.system_prompt else [_EMPTY_TURN]
    prompted, bare = await asyncio.gather(
        parts.dispatcher.count_tokens(request.model, messages, tools=request.tools),
        parts.dispatcher.count_tokens(request.model, [_EMPTY_TURN]),
    )
    return prompted - bare


async def _finish(task: Task, parts: Services, wait: bool) -> Resolved:
    if task.recipe is not None:
        return Resolved(task, None)
    if wait:
        return await parts.resolver.compile(task)
    parts.resolver.start(task)
    return Resolved(task, None)


async def _refuse_unservable(resolved: Resolved, parts: Services) -> None:
    """Refuse a prompt that can neither be compiled nor be read by the edge model."""
    task = resolved.task
    limit = parts.dispatcher.info(task.edge_model).max_model_len
    hopeless = task.fallback_reason in ("prompt_too_long", "no_generator")
    if not hopeless or task.prompt_tokens < limit:
        return
    await parts.store.delete(task.tenant, task.id)
    await parts.resolver.invalidate(task)
    raise PromptTooLong(
        f"prompt and tools have {task.prompt_tokens} tokens; model {task.edge_model!r} reads "
        f"{limit} with the conversation, and no generator compiles it",
        param="system_prompt",
    )


def _answer(status: int, resolved: Resolved, *, cached: bool) -> JSONResponse:
    return JSONResponse({**task_object(resolved.task), "cached": cached}, status_code=status)
