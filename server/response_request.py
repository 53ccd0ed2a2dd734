"""`POST /v1/responses` as a conversation: the stateless part of OpenAI's Responses API.

https://platform.openai.com/docs/api-reference/responses/create. Nothing is kept here, so fields
that need a kept response or a background are refused; a missing `store` counts as false.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator

from server.messages import Message
from server.requests import ChatRequest, ServedRequest, SystemPromptUse

_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_CHOICES: Final = ("none", "auto", "required")
_TEXT_PARTS: Final = frozenset({"input_text", "output_text"})
_SAME_IN_CHAT: Final = (
    "parallel_tool_calls",
    "stream",
    "system_prompt",
    "temperature",
    "top_p",
    "user",
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TextFormat(_Part):
    """Free text."""

    type: Literal["text"]

    def chat(self) -> dict[str, Any] | None:
        """Return it as chat completions' `response_format`."""
        return None


class JsonObjectFormat(_Part):
    """Any JSON object."""

    type: Literal["json_object"]

    def chat(self) -> dict[str, Any]:
        """Return it as chat completions' `response_format`."""
        return {"type": "json_object"}


class JsonSchemaFormat(_Part):
    """JSON of a schema."""

    type: Literal["json_schema"]
    name: str
    # Not `schema`, which pydantic's own classes have.
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: StrictBool | None = None

    def chat(self) -> dict[str, Any]:
        """Return it as chat completions' `response_format`."""
        fields = self.model_dump(by_alias=True, exclude_unset=True, exclude={"type"})
        return {"type": "json_schema", "json_schema": fields}


class TextConfig(_Part):
    """How the text is to be."""

    format: Annotated[
        TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
    ] = TextFormat(type="text")


class FunctionTool(_Part):
    """A function, flat as the Responses API has it."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None

    def chat(self) -> dict[str, Any]:
        """Return it as chat completions have it."""
        fields = self.model_dump(exclude_none=True, exclude={"type", "parameters"})
        parameters = {} if self.parameters is None else {"parameters": self.parameters}
        return {"type": "function", "function": fields | parameters}


class ResponsesRequest(ServedRequest):
    """`POST /v1/responses`."""

    input: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    system_prompt: SystemPromptUse = "auto"
    temperature: float | None = None
    text: TextConfig = TextConfig()
    tool_choice: str | dict[str, Any] | None = None
    tools: Annotated[tuple[FunctionTool, ...], Field(fail_fast=True, strict=False)] = ()
    top_p: float | None = None
    truncation: Literal["disabled"] | None = None
    user: str | None = None
    background: bool | None = Field(None, description="Only false.")
    conversation: Any = Field(None, description="Only null.")
    previous_response_id: str | None = Field(None, description="Only null.")
    store: bool | None = Field(None, description="Only false, which is also the default here.")

    @field_validator("background", "conversation", "previous_response_id", "store")
    @classmethod
    def _needs_no_memory(cls, value: Any) -> Any:
        if value:
            raise ValueError("responses are not kept here; send the whole conversation as input")
        return value

    @field_validator("input")
    @classmethod
    def _is_text(cls, value: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
        _messages(value)
        return value

    @field_validator("tool_choice")
    @classmethod
    def _is_a_choice(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(value, str) and value not in _CHOICES:
            raise ValueError(f"must be one of {', '.join(_CHOICES)}, or a function")
        if isinstance(value, dict) and (
            set(value) != {"type", "name"}
            or value["type"] != "function"
            or not isinstance(value["name"], str)
        ):
            raise ValueError('a function is chosen as {"type": "function", "name": ...}')
        return value

    def chat(self) -> ChatRequest:
        """Return the same request to chat completions."""
        fields = self.model_dump(
            exclude_unset=True, include={*_SAME_IN_CHAT, *ServedRequest.model_fields}
        )
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        fields["messages"] = [*system, *_messages(self.input)]
        if self.max_output_tokens is not None:
            fields["max_tokens"] = self.max_output_tokens
        if self.stream:
            fields["stream_options"] = {"include_usage": True}
        if (response_format := self.text.format.chat()) is not None:
            fields["response_format"] = response_format
        if self.tools:
            fields["tools"] = [tool.chat() for tool in self.tools]
        if isinstance(self.tool_choice, dict):
            function = {"name": self.tool_choice["name"]}
            fields["tool_choice"] = {"type": "function", "function": function}
        elif self.tool_choice is not None:
            fields["tool_choice"] = self.tool_choice
        return ChatRequest.model_validate(fields)


def _messages(items: str | Sequence[dict[str, Any]]) -> list[Message]:
    """Return the messages of `input`.

    Raises:
        ValueError: one is not text, a function call or its output; the message says which.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    messages: list[Message] = []
    for index, item in enumerate(items):
        match item.get("type", "message"):
            case "message":
                messages.append(_message(f"input.{index}", item))
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                messages[-1].setdefault("tool_calls", []).append(_call(f"input.{index}", item))
            case "function_call_output":
                messages.append(_output(f"input.{index}", item))
            case kind:
                raise ValueError(f"input.{index}: items of type {kind!r} are not supported")
    return messages


def _message(where: str, item: dict[str, Any]) -> Message:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"{where}.role must be one of {', '.join(sorted(_ROLES))}")
    return {"role": role, "content": _text(f"{where}.content", item.get("content"))}


def _call(where: str, item: dict[str, Any]) -> dict[str, Any]:
    function = {key: _string(where, item, key) for key in ("name", "arguments")}
    return {"id": _string(where, item, "call_id"), "type": "function", "function": function}


def _output(where: str, item: dict[str, Any]) -> Message:
    text = _text(f"{where}.output", item.get("output"))
    return {"role": "tool", "tool_call_id": _string(where, item, "call_id"), "content": text}


def _text(where: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError(f"{where} must be text or a list of text parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
            raise ValueError(f"{where}: only text parts are supported")
        texts.append(part["text"])
    return "\n".join(texts)


def _string(where: str, item: dict[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{where}.{key} must be text")
    return value
