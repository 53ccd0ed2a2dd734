"""`/v1/tasks`: register a system prompt and tools, look at them, refine them, delete them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response

from loragen.errors import TaskDamaged, TaskNotFound
from loragen.measurement import Measurement, RefineOutcome
from loragen.task import FallbackReason, Task, TaskRecord
from server.document import described
from server.registration import finish, register, remove, remove_unreadable
from server.requests import CreateTaskRequest, PageQuery, RefineTaskRequest
from server.services import Services, services, tenant

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

Parts = Annotated[Services, Depends(services)]
Owner = Annotated[str, Depends(tenant)]


@router.post("", status_code=201, responses=described(200, 201, 202))
async def create_task(request: CreateTaskRequest, parts: Parts, owner: Owner) -> Response:
    """Register a prompt and tools: 201 when ready, 202 while it compiles, 200 when it existed.

    A name given is the task's from here on: its version 1, unless it is the task's already.
    """
    task, is_new = await register(request, parts, owner, name=request.name)
    task = await finish(task, parts, wait=request.wait, is_new=is_new)
    name = request.name or (await _names(parts, owner, [task]))[task.id]
    (shown,) = await task_objects(parts, owner, [task], {task.id: name})
    status = (202 if task.status == "compiling" else 201) if is_new else 200
    return JSONResponse({**shown, "cached": not is_new}, status_code=status)


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
        "data": await task_objects(parts, owner, page.tasks, names),
        "first_id": page.tasks[0].id if page.tasks else None,
        "last_id": page.tasks[-1].id if page.tasks else None,
        "has_more": page.has_more,
    }


@router.get("/{task_id}")
async def get_task(task_id: str, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Return one task."""
    task = await _require(parts, owner, task_id)
    (shown,) = await task_objects(parts, owner, [task], await _names(parts, owner, [task]))
    return shown


@router.post("/{task_id}/refine", status_code=202)
async def refine_task(
    task_id: str, request: RefineTaskRequest, parts: Parts, owner: Owner
) -> dict[str, Any]:
    """Fit the task's recipe to probes; it serves on, and takes the new recipe if that is better.

    A quarter of the probes, at least 4, measure both recipes and are not fitted. A probe without
    `output` is answered by the edge model with the prompt in context. Without probes the task's own
    are used, or messages that the edge model itself expects. How it went is then in the task's
    `refine`.
    """
    task = await _require(parts, owner, task_id)
    await parts.refinement.start(
        task,
        request.probes or task.probes,
        admit=lambda: parts.gatekeeper.take_compile(parts.tenant(owner)),
    )
    (shown,) = await task_objects(parts, owner, [task], await _names(parts, owner, [task]))
    return {**shown, "refine": _refine_object(None, is_running=True)}


@router.delete("/{task_id}")
async def delete_task(task_id: str, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Delete a task with its recipe; names that stand for it stand for nothing.

    One that is damaged in Redis goes too.
    """
    try:
        task = await _require(parts, owner, task_id)
    except TaskDamaged:  # no reason to keep it
        await remove_unreadable(owner, task_id, parts)
    else:
        await remove(task, parts)
    return {"id": task_id, "object": "task.deleted", "deleted": True}


async def task_objects(
    parts: Services, owner: str, tasks: Sequence[TaskRecord], names: Mapping[str, str | None]
) -> list[dict[str, Any]]:
    """Return tasks as the API shows them, each by one of its names; no prompt is ever shown."""
    refining = await parts.refinement.running(owner, [task.id for task in tasks])
    return [
        {
            **_task_object(task, names[task.id], parts.standing.withheld(task)),
            "refine": _refine_object(task.refine, is_running=task.id in refining),
        }
        for task in map(parts.pools.shown, tasks)
    ]


def _task_object(
    task: TaskRecord, name: str | None, withheld: FallbackReason | None
) -> dict[str, Any]:
    recipe, measured = task.recipe, task.measured
    return {
        "id": task.id,
        "object": "task",
        "name": name,
        "model": task.edge_model,
        "status": task.status if withheld is None else "fallback",
        "fallback_reason": withheld or task.fallback_reason,
        "created_at": task.created_at,
        "prompt_tokens": task.prompt_tokens,
        "policy": task.policy.model_dump(),
        "min_fidelity": task.min_fidelity,
        "recipe": recipe and {"id": recipe.id, "pool_id": recipe.pool_id, "bytes": recipe.bytes},
        "fidelity": measured and measured.fidelity,
        "agreement": measured and measured.agreement,
        "doubt": measured and measured.doubt,
        "measured": measured is not None and measured.failure is None,
        "measures": [each.model_dump() for each in reversed(_measures(task))],
        "compile_seconds": task.compile_seconds,
    }


def _measures(task: TaskRecord) -> tuple[Measurement, ...]:
    now = task.measurement
    return task.past_measurements if now is None else (*task.past_measurements, now)


def _refine_object(last: RefineOutcome | None, *, is_running: bool) -> dict[str, Any] | None:
    if is_running:
        return {"status": "running"}
    return None if last is None else last.model_dump()


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
