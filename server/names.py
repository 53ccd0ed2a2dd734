"""`/v1/tasks/by-name`: a name that stays while its prompt is edited, with versions to go back to.

A name moves to a prompt once that can answer, compiled or by fallback; until then it keeps
serving what it did.
"""

import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask

from loragen.errors import LoragenError, TaskNotFound, Unavailable
from loragen.names import Change, History, Name, Version
from loragen.task import Task, TaskRecord
from server.document import described
from server.registration import finish, register
from server.requests import RollbackRequest, TaskRequest
from server.services import Services, services, tenant
from server.tasks import task_objects

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/tasks/by-name/{name}", tags=["names"])

Parts = Annotated[Services, Depends(services)]
Owner = Annotated[str, Depends(tenant)]


@router.put("", responses=described(200, 201, 202))
async def put_name(name: Name, request: TaskRequest, parts: Parts, owner: Owner) -> Response:
    """Point a name at a prompt: 201 for another version, 200 if it is the current one.

    With `wait: false` 202: the name moves when the prompt is compiled or has fallen back.
    """
    edit = await parts.names.begin_edit(owner)
    task, is_new = await register(request, parts, owner)
    task = await finish(task, parts, wait=request.wait, is_new=is_new)
    if task.status == "failed":
        raise _unanswerable(task)
    if task.status == "compiling" and await parts.names.find(owner, name) not in (None, task.id):
        moving = BackgroundTask(_move, parts, name, task, edit, is_new=is_new)
        shown = await _named_object(parts, name, task, None)
        return _answer(202, shown, cached=not is_new, background=moving)
    change = await parts.names.point(owner, name, task.id, edit=edit, now=int(time.time()))
    await parts.name_memory.changed(owner, name)
    status = 202 if task.status == "compiling" else _status(change)
    return _answer(
        status, await _named_object(parts, name, task, change.version), cached=not is_new
    )


@router.get("")
async def get_name(name: Name, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Return the task a name stands for, and which version that is."""
    current = (await _require(parts, owner, name)).current
    if current is None:
        raise TaskNotFound(f"the task that {name!r} stood for was deleted", param="name")
    return await _named_object(parts, name, await _record(parts, owner, current), current)


@router.delete("")
async def delete_name(name: Name, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Delete a name and its versions; the tasks stay."""
    if not await parts.names.delete(owner, name):
        raise _unknown(name)
    await parts.name_memory.changed(owner, name)
    return {"name": name, "object": "task.name.deleted", "deleted": True}


@router.get("/versions")
async def list_versions(name: Name, parts: Parts, owner: Owner) -> dict[str, Any]:
    """Return the versions of a name, newest first."""
    history = await _require(parts, owner, name)
    versions = [
        {
            "object": "task.version",
            "version": version.number,
            "task_id": version.task_id,
            "created_at": version.created_at,
            "current": version == history.current,
        }
        for version in reversed(history.versions)
    ]
    return {"object": "list", "data": versions, "has_more": False}


@router.post("/rollback", responses=described(200, 201))
async def roll_back(
    name: Name, parts: Parts, owner: Owner, request: RollbackRequest | None = None
) -> Response:
    """Point a name at the task of an earlier version: 201 for another version, which this makes."""
    await _require(parts, owner, name)
    number = None if request is None else request.version
    change = await parts.names.roll_back(owner, name, number, now=int(time.time()))
    await parts.name_memory.changed(owner, name)
    record = await _record(parts, owner, change.version)
    shown = await _named_object(parts, name, record, change.version)
    return JSONResponse(shown, status_code=_status(change))


async def _move(parts: Services, name: str, task: Task, edit: int, *, is_new: bool) -> None:
    """Point a name at a task as soon as that can answer."""
    try:
        task = await finish(task, parts, wait=True, is_new=is_new)
        if task.status == "failed":
            raise _unanswerable(task)
        await parts.names.point(
            task.tenant, name, task.id, edit=edit, now=int(time.time()), must_exist=True
        )
        await parts.name_memory.changed(task.tenant, name)
    except LoragenError as error:  # nobody waits for the answer any more
        logger.warning("name not moved", extra={"task_id": task.id, "code": error.code})


async def _require(parts: Services, owner: str, name: str) -> History:
    history = await parts.names.history(owner, name)
    if history is None:
        raise _unknown(name)
    return history


async def _record(parts: Services, owner: str, version: Version) -> TaskRecord:
    records = await parts.store.records(owner, [version.task_id])
    if version.task_id not in records:
        raise TaskNotFound(f"no task {version.task_id!r}", param="name")
    return records[version.task_id]


def _unknown(name: str) -> TaskNotFound:
    return TaskNotFound(f"no task has the name {name!r}", param="name")


def _unanswerable(task: Task) -> Unavailable:
    return Unavailable(
        f"task {task.id!r} has no recipe ({task.fallback_reason}) and its policy forbids a "
        "fallback; the name stays as it was",
        retry_after=1.0,
    )


def _status(change: Change) -> int:
    return 201 if change.is_new else 200


async def _named_object(
    parts: Services, name: str, task: TaskRecord, version: Version | None
) -> dict[str, Any]:
    (shown,) = await task_objects(parts, task.tenant, [task], {task.id: name})
    return {**shown, "version": None if version is None else version.number}


def _answer(
    status: int,
    shown: dict[str, Any],
    *,
    cached: bool,
    background: BackgroundTask | None = None,
) -> JSONResponse:
    return JSONResponse({**shown, "cached": cached}, status_code=status, background=background)
