"""Every failure leaves as an OpenAI error object, whatever raised it."""

import json
import logging
import math
import re
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from loragen import metrics
from loragen.errors import InvalidRequest, LimitExceeded, LoragenError, NotFound

logger = logging.getLogger(__name__)

CONTROL_FIELDS: Final = frozenset(
    {
        "add_generation_prompt",
        "cache_salt",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "echo",
        "kv_transfer_params",
        "loragen_recipe",
        "priority",
        "prompt_logprobs",
        "vllm_xargs",
    }
)
"""Worker fields that would reach into other tenants or the engine; refused by name."""

CLIENT_CLOSED_REQUEST: Final = 499
"""Nobody reads this status; it tells such requests apart in the metrics, as nginx does."""

_PLACES: Final = frozenset({"body", "query", "path", "header"})
_UNION_MEMBER: Final = re.compile(r"(str|bool|int|float|(list|dict)\[.*\])")
"""What pydantic puts into a location to say which member of a union it tried."""


def install_error_handlers(app: FastAPI) -> None:
    """Make the application answer every failure in the OpenAI shape."""
    app.add_exception_handler(LoragenError, _on_own)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


class ErrorResponse(JSONResponse):
    """An error object in ASCII: it quotes requests, and those can hold what UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def error_response(error: LoragenError) -> ErrorResponse:
    """Return the response of an error."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, LimitExceeded):
        metrics.LIMITS_REJECTED.labels(error.param).inc()
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return ErrorResponse(error.body(), status_code=error.status, headers=headers)


def unexpected_response(error: Exception) -> ErrorResponse:
    """Log a failure that is none of ours and return what the client may know of it."""
    logger.error("unexpected failure", exc_info=error)
    return error_response(LoragenError("internal error; see the server's log for this request id"))


def explain_validation(errors: Sequence[Any]) -> InvalidRequest:
    """Turn pydantic's list of problems into one error that names the first field."""
    first = errors[0]
    parts = [str(part) for part in first["loc"] if part not in _PLACES]
    param = ".".join(part for part in parts if not _UNION_MEMBER.fullmatch(part)) or None
    if first["type"] == "json_invalid":
        return InvalidRequest("the request body is not valid JSON")
    if first["type"] == "missing" and param is None:
        return InvalidRequest("the request needs a JSON body")
    if first["type"] == "model_attributes_type" and param is None:
        return InvalidRequest(
            "the request body must be a JSON object, with content-type: application/json"
        )
    if first["type"] == "extra_forbidden":
        if param in CONTROL_FIELDS:
            message = f"field {param!r} is reserved for the server and cannot be set in a request"
        else:
            message = f"unknown field {param!r}"
        return InvalidRequest(message, param=param)
    problem = first["msg"].removeprefix("Value error, ")
    return InvalidRequest(f"{param}: {problem}" if param else problem, param=param)


async def _on_own(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, LoragenError)
    if error.status >= 500:
        logger.warning("request failed", extra={"code": error.code, "path": request.url.path})
    return error_response(error)


async def _on_validation(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(explain_validation(error.errors()))


async def _on_http(request: Request, error: Exception) -> ErrorResponse:
    assert isinstance(error, HTTPException)
    place = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return error_response(NotFound(f"no such path: {place}"))
    if error.status_code == 405:
        own = InvalidRequest(f"not allowed: {place}")
        return ErrorResponse(own.body(), status_code=405, headers={"allow": _allowed(request)})
    known = {400: "the request body cannot be read as JSON"}
    own = InvalidRequest(known.get(error.status_code, str(error.detail)))
    return ErrorResponse(own.body(), status_code=error.status_code, headers=error.headers)


def _allowed(request: Request) -> str:
    """Return the methods of a path: Starlette knows those of its first route alone."""
    every: Sequence[BaseRoute] = request.app.router.routes
    routes = [route for route in every if isinstance(route, Route)]
    path = next(each.path for each in routes if each.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(
        sorted({m for each in routes if each.path == path for m in each.methods or ()})
    )
