"""Tools: the functions a task offers the edge model, in the form of OpenAI.

One task, one canonical text: it enters the task's id, and it is what a generator reads behind the
prompt. Keys are sorted there, so two spellings of one definition are one task; what an edge model
is shown keeps the order its client gave, as a template would print it without us.

https://platform.openai.com/docs/api-reference/chat/create#chat-create-tools
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    TypeAdapter,
    ValidationError,
)

MAX_TOOLS: Final = 128


class Function(BaseModel):
    """A function: its name and the JSON schema of its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None


class Tool(BaseModel):
    """One entry of `tools`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    type: Literal["function"]
    function: Function

    def body(self) -> dict[str, Any]:
        """Return the entry as a request holds it."""
        return {"type": self.type, "function": _without_none(self.function)}


def _are_distinct(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    names = [tool.function.name for tool in tools]
    if len(set(names)) != len(names):
        raise ValueError("two tools have the same name")
    return tools


Tools = Annotated[
    tuple[Tool, ...],
    Field(max_length=MAX_TOOLS, fail_fast=True, strict=False),
    AfterValidator(_are_distinct),
]
"""What a task may hold."""

_ADAPTER: Final[TypeAdapter[tuple[Tool, ...]]] = TypeAdapter(Tools)


def parse_tools(bodies: Sequence[object]) -> tuple[Tool, ...]:
    """Return the tools of a request body.

    Raises:
        pydantic.ValidationError: they are not tools.
    """
    return _ADAPTER.validate_python(tuple(bodies))


def try_parse_tools(bodies: Sequence[object]) -> tuple[Tool, ...] | None:
    """Return the tools of a request body; None if a task could not hold them."""
    try:
        return parse_tools(bodies)
    except ValidationError:
        return None


def load_tools(text: str) -> tuple[Tool, ...]:
    """Return the tools that `dump_tools` wrote.

    Raises:
        pydantic.ValidationError: it did not.
    """
    return _ADAPTER.validate_json(text)


def dump_tools(tools: Sequence[Tool]) -> str:
    """Return tools as JSON text, keys in their order."""
    return _json([tool.body() for tool in tools])


def canonical_tools(tools: Sequence[Tool]) -> str:
    """Return the one text of these tools, keys sorted; empty if there are none."""
    return _json([tool.body() for tool in tools], sort_keys=True) if tools else ""


def same_tools(some: Sequence[Tool], others: Sequence[Tool]) -> bool:
    """Whether two lists offer the same functions, in whatever order."""
    return sorted(canonical_tools([tool]) for tool in some) == sorted(
        canonical_tools([tool]) for tool in others
    )


def compile_text(prompt: str, tools: Sequence[Tool]) -> str:
    """Return what a generator reads of a task: the prompt, then one line for each tool.

    Without tools it is the prompt itself.
    """
    if not tools:
        return prompt
    lines = [_json(_function_fields(tool.function)) for tool in tools]
    return "\n".join([*([prompt, ""] if prompt else []), "Tools:", *lines])


def _function_fields(function: Function) -> dict[str, Any]:
    fields = _without_none(function)
    if "parameters" in fields:
        fields["parameters"] = json.loads(_json(fields["parameters"], sort_keys=True))
    return fields


def _without_none(function: Function) -> dict[str, Any]:
    # Not pydantic's `exclude_none`: a schema may hold null, as in {"default": null}.
    return {name: value for name, value in function if value is not None}


def _json(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
