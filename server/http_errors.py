"""Every failure leaves as an OpenAI error object, whatever raised it."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from loragen.errors import InvalidRequest, LoragenError, NotFound

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


def install_error_handlers(app: FastAPI) -> None:
    """Make the application answer every failure in the OpenAI shape."""
    app.add_exception_handler(LoragenError, _on_own)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unexpected)


def error_response(error: LoragenError) -> JSONResponse:
    """Return the response of an error."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    return JSONResponse(error.body(), status_code=error.status, headers=headers)


def explain_validation(errors: Sequence[Any]) -> InvalidRequest:
    """Turn pydantic's list of problems into one error that names the first field."""
    first = errors[0]
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(path) or None
    if first["type"] == "json_invalid":
        return InvalidRequest("the request body is not valid JSON")
    if first["type"] == "missing" and param is None:
        return InvalidRequest("the request needs a JSON body")
    if first["type"] == "extra_forbidden":
        if param in CONTROL_FIELDS:
            message = f"field {param!r} is reserved for the server and cannot be set in a request"
        else:
            message = f"unknown field {param!r}"
        return InvalidRequest(message, param=param)
    return InvalidRequest(f"{param or 'request'}: {first['msg']}", param=param)


async def _on_own(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LoragenError)
    if error.status >= 500:
        logger.warning("request failed", extra={"code": error.code, "path": request.url.path})
    return error_response(error)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(explain_validation(error.errors()))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(NotFound(f"no such path: {request.method} {request.url.path}"))
    own = InvalidRequest(str(error.detail))
    body = own.body()
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("unexpected failure", exc_info=error, extra={"path": request.url.path})
    return error_response(LoragenError("internal error; see the server's log for this request id"))
