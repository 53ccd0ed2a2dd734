"""`/v1/tasks`: register a system prompt and tools, look at them, delete them."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from loragen.errors import TaskNotFound
from loragen.task import Task, TaskRecord
from server.registration import finish, register, remove
from server.requests import CreateTaskRequest, PageQuery
from server.services import Services, services, tenant

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

Parts = Annotated[Services, Depends(services)]
Owner = Annotated[str, Depends(tenant)]


@router.post("", status_code=201)
async def create_task(request: CreateTaskRequest, parts: Parts, owner: Owner) -> Response:
    """Register a prompt and tools: 201 when ready, 202 while it compiles, 200 when it existed.

    A name given is the task's from here on: its version 1, unless it is the task's already.
    """
    task, is_new = await register(request, parts, owner, name=request.name)
    task = (await finish(task, parts, wait=request.wait)).task
    name = request.name or (await _names(parts, owner, [task]))[task.id]
    status = (202 if task.status == "compiling" else 201) if is_new else 200
    return JSONResponse({**task_object(task, name), "cached": not is_new}, status_code=status)


@router.get("")
async def list_tasks(
    parts: Parts, owner: Owner, query: Annotated[PageQuery, Query()]
) -> dict[str, Any]:
    """Return a page of the tenant's tasks."""
    page = await parts.store.page(
        owner, limit=query.limit, after=query.after, newest_first=query.order == "desc"
    )
    names = await _names(parts, owner, page.tasks)
    return {
        "object": "list",
        "data": [task_object(task, names[task.id]) for task in page.tasks],
        "first_id": page.tasks[0].id if page.tasks else None,
        "last_id": page.tasks[-1].id if page.tasks else None,
        "has_more": page.has_more,
    }


@router.get("/{task_id}")
async def get_task(task_id: str, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Return one task."""
    task = await _require(parts, owner, task_id)
    return task_object(task, (await _names(parts, owner, [task]))[task_id])


@router.delete("/{task_id}")
async def delete_task(task_id: str, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Delete a task with its recipe; names that stand for it stand for nothing."""
    await remove(await _require(parts, owner, task_id), parts)
    return {"id": task_id, "object": "task.deleted", "deleted": True}


def task_object(task: TaskRecord, name: str | None) -> dict[str, Any]:
    """Return a task as the API shows it, by one of its names; the prompt is never shown."""
    recipe = task.recipe
    return {
        "id": task.id,
        "object": "task",
        "name": name,
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


async def _require(parts: Services, owner: str, task_id: str) -> Task:
    task = await parts.store.get(owner, task_id)
    if task is None:
        raise TaskNotFound(f"no task {task_id!r}", param="task_id")
    return task


async def _names(parts: Services, owner: str, tasks: Sequence[TaskRecord]) -> dict[str, str | None]:
    """Return for each task the first of the names that stand for it."""
    aliases = await parts.names.aliases(owner, [task.id for task in tasks])
    return {
        task_id: next((alias.name for alias in held if alias.is_current), None)
        for task_id, held in aliases.items()
    }
