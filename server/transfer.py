"""`/v1/tasks/export` and `/v1/tasks/import`: all tasks of a tenant as lines of JSON.

A line holds all that makes a task and its names, the prompt included, so that an empty installation
with the same master secret has the same ids, names and versions again. Recipes are not in it: they
are compiled again.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field, ValidationError
from starlette.background import BackgroundTask

from loragen.errors import InvalidRequest, LoragenError, RequestTooLarge
from loragen.names import Alias, Name, Version
from loragen.task import Task
from server.http_errors import explain_validation
from server.registration import finish, register
from server.requests import ApiRequest, TaskFields
from server.services import Services, services, tenant

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/tasks", tags=["transfer"])

IMPORT_PATH: Final = "/v1/tasks/import"
MAX_LINES: Final = 100_000
"""Of one import, or its answer alone could be gigabytes."""

_LINES: Final = "application/x-ndjson"
_PAGE: Final = 100
_CONTENT: Final[dict[str, Any]] = {"content": {_LINES: {"schema": {"description": "Lines."}}}}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {200: _CONTENT}

Parts = Annotated[Services, Depends(services)]
Owner = Annotated[str, Depends(tenant)]


class NamedVersion(ApiRequest):
    """A version of a name that is of the line's task."""

    name: Name
    version: int = Field(ge=1)
    created_at: int = Field(ge=0)
    current: bool = False


class TaskLine(TaskFields):
    """One line: a task with its names. `id` is what the exporting installation called it."""

    id: str | None = None
    created_at: int | None = Field(None, ge=0)
    names: Annotated[tuple[NamedVersion, ...], Field(fail_fast=True, strict=False)] = ()


@router.get("/export", response_class=StreamingResponse, responses=_ANSWER)
async def export_tasks(parts: Parts, owner: Owner) -> Response:
    """Return all tasks, oldest first, one JSON object a line; they contain the prompts."""
    await parts.store.ping()  # once the stream has begun, a failure can only cut it
    return StreamingResponse(_exported(parts, owner), media_type=_LINES)


@router.post(
    "/import",
    response_class=StreamingResponse,
    responses=_ANSWER,
    openapi_extra={"requestBody": {"required": True, **_CONTENT}},
)
async def import_tasks(http: Request, parts: Parts, owner: Owner) -> Response:
    """Create what is missing of exported tasks; a result for each line, then their counts.

    The answer does not wait for compiling, which goes on behind it, or at a task's first request.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_LINES, "application/jsonl"):
        raise InvalidRequest(f"the body must be lines of JSON, with content-type: {_LINES}")
    body = await http.body()
    if body.count(b"\n") > MAX_LINES:
        raise RequestTooLarge(f"more than {MAX_LINES} lines: import them in parts")
    created: list[Task] = []
    results = _results(body.split(b"\n"), parts, owner, created)
    compiling = BackgroundTask(_compile, created, parts)
    return StreamingResponse(results, media_type=_LINES, background=compiling)


async def _exported(parts: Services, owner: str) -> AsyncIterator[bytes]:
    after, has_more = None, True
    while has_more:
        page = await parts.store.page(owner, limit=_PAGE, after=after, newest_first=False)
        ids = [task.id for task in page.tasks]
        aliases = await parts.names.aliases(owner, ids)
        for task in await asyncio.gather(*(parts.store.get(owner, task_id) for task_id in ids)):
            if task is not None:
                yield _line(_exported_task(task, aliases[task.id]))
        after, has_more = (ids[-1] if ids else None), page.has_more and bool(ids)


def _exported_task(task: Task, aliases: Sequence[Alias]) -> dict[str, Any]:
    line = {
        "id": task.id,
        "model": task.edge_model,
        "system_prompt": task.prompt,
        "tools": [tool.body() for tool in task.tools],
        "policy": task.policy.model_dump(),
        "min_fidelity": task.min_fidelity,
        "probes": [probe.model_dump(exclude_none=True) for probe in task.probes],
        "created_at": task.created_at,
        "names": [
            {
                "name": alias.name,
                "version": alias.version.number,
                "created_at": alias.version.created_at,
                "current": alias.is_current,
            }
            for alias in aliases
        ],
    }
    return {key: value for key, value in line.items() if value != []}


async def _results(
    lines: Sequence[bytes], parts: Services, owner: str, created: list[Task]
) -> AsyncIterator[bytes]:
    """Yield a result for each line, and put the tasks that are new into `created`."""
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    counts: Counter[str] = Counter()
    width = parts.settings.import_concurrency
    for start in range(0, len(numbered), width):
        window = numbered[start : start + width]
        for result in await asyncio.gather(
            *(_import(number, line, parts, owner, created) for number, line in window)
        ):
            counts["failed" if "error" in result else result["status"]] += 1
            yield _line(result)
    summary = {outcome: counts[outcome] for outcome in ("created", "existing", "failed")}
    yield _line({"object": "task.import", **summary})


async def _import(
    number: int, line: bytes, parts: Services, owner: str, created: list[Task]
) -> dict[str, Any]:
    """Import one line; nothing that is wrong with it concerns the others."""
    result: dict[str, Any] = {"line": number}
    try:
        record = _parsed(line)
        task, is_new = await register(record, parts, owner, created_at=record.created_at)
        result |= {"id": task.id, "status": "created" if is_new else "existing"}
        if record.id not in (None, task.id):
            result["exported_id"] = record.id
        if is_new:
            created.append(task)
        for named in record.names:
            version = Version(named.version, task.id, named.created_at)
            await parts.names.restore(owner, Alias(named.name, version, named.current))
            await parts.name_memory.changed(owner, named.name)
    except LoragenError as error:
        error.message = f"line {number}: {error.message}"
        result |= error.body()
    return result


def _parsed(line: bytes) -> TaskLine:
    try:
        return TaskLine.model_validate_json(line)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        if problems[0]["type"] == "json_invalid":
            raise InvalidRequest("not valid JSON") from None
        raise explain_validation(problems) from None


async def _compile(tasks: Sequence[Task], parts: Services) -> None:
    waiting = iter(tasks)

    async def compile_some() -> None:
        for task in waiting:
            try:
                await finish(task, parts, wait=True)
            except LoragenError as error:  # the first request to the task meets it again
                extra = {"task_id": task.id, "code": error.code}
                logger.warning("imported task not compiled", extra=extra)

    async with asyncio.TaskGroup() as group:
        for _ in range(parts.settings.import_concurrency):
            group.create_task(compile_some())


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
