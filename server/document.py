"""Document: the OpenAPI document, FastAPI's with every failure in the shape in which it leaves.

FastAPI knows neither our errors nor what stands before the routes: keys, limits, sizes. The errors
are read from their classes, so none can leave that the document does not have.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI

from loragen.errors import InvalidRequest, LoragenError, RecipeInvalid, RecipeMismatch, StartupError
from server.entrance import OPEN_PATHS

_UNSEEN: Final = (StartupError, RecipeInvalid, RecipeMismatch)
"""Errors that no client meets."""
_NO_TENANT_NEEDED: Final = frozenset({400, 405, 408, 413, 431, 500, 503})
"""Statuses of the failures that are left where no tenant is asked for."""
_NOT_ALLOWED: Final = 405
_SCHEMA: Final[dict[str, Any]] = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field it is about."},
                "code": {"type": "string"},
            },
        }
    },
}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"www-authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    405: {"allow": {"required": True, "schema": {"type": "string"}}},
    429: {"retry-after": {"description": "Seconds.", "schema": {"type": "string"}}},
    503: {"retry-after": {"description": "Seconds.", "schema": {"type": "string"}}},
}


def install_document(app: FastAPI, *, auth: Literal["open", "keys"]) -> None:
    """Make the application describe itself by this document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain(), auth)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a call says that answers an object with one of these statuses."""
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def seen_errors() -> list[type[LoragenError]]:
    """Return the errors that clients can meet, by status."""
    seen = [error for error in _descendants(LoragenError) if not issubclass(error, _UNSEEN)]
    return sorted(seen, key=lambda error: error.status)


def _completed(document: dict[str, Any], auth: Literal["open", "keys"]) -> dict[str, Any]:
    errors = _errors()
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for unsaid in ("HTTPValidationError", "ValidationError"):  # ours is a 400, as OpenAI's is
        schemas.pop(unsaid, None)
    schemas["Error"] = _SCHEMA
    parts["responses"] = {f"Error{status}": error for status, error in errors.items()}
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, calls in document["paths"].items():
        for call in calls.values():
            call["responses"].pop("422", None)
            for status in errors:
                if path not in OPEN_PATHS or status in _NO_TENANT_NEEDED:
                    reference = {"$ref": f"#/components/responses/Error{status}"}
                    call["responses"].setdefault(str(status), reference)
            if path not in OPEN_PATHS:
                call["security"] = [{"key": []}] if auth == "keys" else [{"key": []}, {}]
    return document


def _errors() -> dict[int, dict[str, Any]]:
    """Return the response of every status that is a failure."""
    codes: dict[int, list[str]] = {_NOT_ALLOWED: [InvalidRequest.code]}
    for error in seen_errors():
        codes.setdefault(error.status, []).append(error.code)
    return {
        status: {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(dict.fromkeys(named))}",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            "headers": _HEADERS.get(status, {}),
        }
        for status, named in sorted(codes.items())
    }


def _descendants(root: type[LoragenError]) -> Iterator[type[LoragenError]]:
    """Yield ours alone: what runs in this process may have derived more."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == root.__module__:
            yield from _descendants(child)
