"""API page: the parts of docs/api.md that code says better: calls and errors.

`python -m server.api_page` writes them between the page's marks; a test compares.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from config.edge_model import EdgeModelSettings
from config.settings import Settings
from server.app import create_app
from server.document import seen_errors

PAGE: Final = Path("docs/api.md")

_BLOCK: Final = re.compile(r"(<!-- written: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SCALARS: Final = (str, int, float, bool)

Schema = Mapping[str, Any]


def main() -> None:
    """Bring docs/api.md up to date."""
    PAGE.write_text(render(PAGE.read_text("utf-8"), openapi()), "utf-8")


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document; nothing is connected to."""
    nothing: dict[str, Any] = {
        "redis_url": "redis://127.0.0.1",
        "master_secret": "00" * 32,
        "edge_models": (EdgeModelSettings(name="demo", model=Path("demo")),),
    }
    return create_app(Settings.model_validate(nothing)).openapi()


def render(page: str, document: Schema) -> str:
    """Return the page with its written parts as the code and an OpenAPI document have them."""
    parts = {"calls": _calls(document), "errors": _errors()}
    lines = {name: "\n".join(part) for name, part in parts.items()}
    return _BLOCK.sub(lambda block: f"{block[1]}{lines[block[2]]}\n{block[3]}", page)


def _errors() -> Iterator[str]:
    yield "| status | code | |"
    yield "|---|---|---|"
    for error in seen_errors():
        yield f"| {error.status} | `{error.code}` | {error.__doc__} |"


def _calls(document: Schema) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            yield f"### `{method.upper()} {path}`\n"
            yield f"{call['description']}\n"
            rows = [*_parameters(call), *_body(call, schemas)]
            if rows:
                yield "| field | where | type | |"
                yield "|---|---|---|---|"
                yield from rows
                yield ""


def _parameters(call: Schema) -> Iterator[str]:
    for parameter in call.get("parameters", ()):
        yield _row(parameter["name"], parameter["in"], parameter["schema"], parameter["required"])


def _body(call: Schema, schemas: Schema) -> Iterator[str]:
    for content in call.get("requestBody", {}).get("content", {}).values():
        for reference, _ in _nested(content["schema"]):
            yield from _fields(reference, schemas, prefix="")


def _fields(reference: str, schemas: Schema, *, prefix: str) -> Iterator[str]:
    model = schemas[reference.rpartition("/")[2]]
    for name, field in model["properties"].items():
        yield _row(prefix + name, "body", field, name in model.get("required", ()))
        for nested, mark in _nested(field):
            yield from _fields(nested, schemas, prefix=f"{prefix}{name}{mark}.")


def _nested(field: Schema) -> Iterator[tuple[str, str]]:
    """Yield the objects within a field, and what its name gets to reach into them."""
    for option in field.get("anyOf", [field]):
        if "$ref" in option:
            yield option["$ref"], ""
        elif "$ref" in option.get("items", {}):
            yield option["items"]["$ref"], "[]"


def _row(name: str, where: str, field: Schema, required: bool) -> str:
    default = field.get("default")
    notes = [
        "required" if required else "",
        f"default `{json.dumps(default)}`" if isinstance(default, _SCALARS) else "",
        field.get("description", ""),
    ]
    return f"| `{name}` | {where} | {_type(field)} | {'; '.join(filter(None, notes))} |"


def _type(field: Schema) -> str:
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    return " or ".join(dict.fromkeys(map(_plain_type, options)))


def _plain_type(field: Schema) -> str:
    values = field.get("enum", [field["const"]] if "const" in field else [])
    if values:
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    bounds = [
        f"{word} {field[key]:g}"
        for word, key in (("from", "minimum"), ("to", "maximum"))
        if key in field
    ]
    return " ".join([field.get("type", "object"), *bounds])


if __name__ == "__main__":
    main()
