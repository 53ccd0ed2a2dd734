"""What schemathesis has to be told: how lines of JSON are sent, and what is there to ask for.

No document says which models are served, so without help most requests would end at a 404.
"""

import json
from typing import Any

import schemathesis

from tests.fakes.gateway import MODEL


@schemathesis.serializer("application/x-ndjson")  # type: ignore[untyped-decorator]
def lines(ctx: Any, value: Any) -> bytes:
    """Return a list as a line for each item, a text as it is."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    items = value if isinstance(value, list) else [value]
    return b"\n".join(json.dumps(item).encode() for item in items)


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Ask for the model that there is."""
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL
