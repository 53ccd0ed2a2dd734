"""Errors: whether a refusal has the shape that OpenAI clients read."""

from typing import Any, Final

import httpx

_FIELDS: Final = {"message", "type", "param", "code"}


def is_error(reply: httpx.Response) -> bool:
    """Say whether a reply is an error object, as JSON."""
    try:
        return reply.status_code >= 400 and is_error_object(reply.json())
    except ValueError:
        return False


def is_error_object(body: Any) -> bool:
    """Say whether a body is `{"error": {"message", "type", "param", "code"}}`."""
    return (
        isinstance(body, dict)
        and isinstance(body.get("error"), dict)
        and set(body["error"]) == _FIELDS
    )
