"""`/v1/responses`: the same answers as chat completions', in the form of the Responses API.

Translated here and not passed on to the workers' own endpoint, so that whatever serves a
conversation (modes, tools, fallback) serves it in this form too.
"""

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response

from loragen.errors import LoragenError, WorkerUnavailable
from server.generation import ANSWERS, HeldStream, serve, while_connected
from server.reference import TaskReference
from server.response_request import ResponsesRequest
from server.response_writer import ResponseWriter
from server.services import Services, services, visit
from server.visit import Visit

router = APIRouter(prefix="/v1", tags=["generation"])

_OURS: Final = {
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "response_format": "text.format",
}
"""What fields of chat completions are called here."""


@router.post("/responses", responses=ANSWERS)
async def responses(
    request: ResponsesRequest,
    http: Request,
    parts: Annotated[Services, Depends(services)],
    visit: Annotated[Visit, Depends(visit)],
    x_task_id: Annotated[list[str] | None, Header()] = None,
) -> Response:
    """Answer and keep nothing (https://platform.openai.com/docs/api-reference/responses)."""
    work = _respond(request, parts, visit, x_task_id or [])
    return await while_connected(http, work, seconds=parts.settings.request_timeout_seconds)


async def _respond(
    request: ResponsesRequest, parts: Services, visit: Visit, headers: list[str]
) -> Response:
    try:
        answer = await serve(request.chat(), parts, visit, headers)
    except LoragenError as error:
        error.param = _OURS.get(error.param or "", error.param)
        raise
    reference = TaskReference.parse(model=request.model, task_id=None, headers=())
    writer = ResponseWriter(request, reference.edge_model)
    if isinstance(answer, HeldStream):
        answer.body_iterator = writer.stream(answer.events)
        return answer
    said = {name: value for name, value in answer.headers.items() if name.startswith("x-")}
    return JSONResponse(_whole(writer, answer), headers=said)


def _whole(writer: ResponseWriter, answer: Response) -> dict[str, Any]:
    try:
        return writer.whole(json.loads(bytes(answer.body)))
    except (KeyError, IndexError, TypeError) as error:
        raise WorkerUnavailable("the worker's answer cannot be read") from error
