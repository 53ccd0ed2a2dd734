"""Requests are refused by name for what is unknown, reserved or not text."""

from typing import Any

import pytest
from pydantic import ValidationError

from loragen.errors import InvalidRequest
from server.admin import ChangeTenantRequest
from server.http_errors import CONTROL_FIELDS, explain_validation
from server.requests import ApiRequest, ChatRequest, CompletionRequest, CreateTaskRequest

QUESTION = {"role": "user", "content": "hello"}
CHAT = {"model": "demo", "messages": [QUESTION]}
TASK = {"model": "demo", "system_prompt": "You are Ada."}
TEXT = {"model": "demo", "prompt": "go"}


def refused(kind: type[ApiRequest], body: dict[str, Any]) -> InvalidRequest:
    """Return the error a body ends in."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    return explain_validation(caught.value.errors())


@pytest.mark.parametrize(
    ("kind", "body", "param", "says"),
    [
        (CreateTaskRequest, {"model": "demo"}, "system_prompt", "required"),
        (CreateTaskRequest, {**TASK, "system_prompt": ""}, "system_prompt", "required"),
        (CreateTaskRequest, {**TASK, "tools": [{}]}, "tools.0.type", "required"),
        (CreateTaskRequest, {**TASK, "system_prompt": " \n\t"}, "system_prompt", "empty"),
        (CreateTaskRequest, {**TASK, "system_prompt": "a\0b"}, "system_prompt", "not text"),
        (CreateTaskRequest, {**TASK, "system_prompt": ["a"]}, "system_prompt", "string"),
        (CreateTaskRequest, {**TASK, "system_prompt": None}, "system_prompt", "string"),
        (CreateTaskRequest, {**TASK, "system_prompt": "\ud800"}, None, "surrogate"),
        (CreateTaskRequest, {**TASK, "name": "Ada"}, "name", "pattern"),
        (CreateTaskRequest, {**TASK, "name": "task_" + "a" * 26}, "name", "task id"),
        (CreateTaskRequest, {**TASK, "policy": {"fallback": "x"}}, "policy.fallback", "prompt"),
        (CreateTaskRequest, {**TASK, "policy": {"x": 1}}, "policy.x", "unknown field"),
        (CreateTaskRequest, {**TASK, "min_fidelity": 2}, "min_fidelity", "less than"),
        (CreateTaskRequest, {**TASK, "min_fidelity": float("nan")}, None, "NaN"),
        (CreateTaskRequest, {**TASK, "wait": "perhaps"}, "wait", "boolean"),
        (CreateTaskRequest, {**TASK, "temperature": 1}, "temperature", "unknown field"),
        (ChatRequest, {"messages": [QUESTION]}, "model", "required"),
        (ChatRequest, {"model": "demo"}, "messages", "required"),
        (ChatRequest, {**CHAT, "messages": []}, "messages", "at least 1"),
        (ChatRequest, {**CHAT, "messages": "hello"}, "messages", "list"),
        (ChatRequest, {**CHAT, "messages": ["hello"]}, "messages.0", "dictionary"),
        (ChatRequest, {**CHAT, "messages": [{}]}, "messages", "role"),
        (ChatRequest, {**CHAT, "messages": [{"role": "god", "content": ""}]}, "messages", "role"),
        (ChatRequest, {**CHAT, "messages": [{"role": []}]}, "messages", "role"),
        (ChatRequest, {**CHAT, "messages": [{"role": "user"}]}, "messages", "content"),
        (ChatRequest, {**CHAT, "messages": [{**QUESTION, "content": 7}]}, "messages", "text"),
        (ChatRequest, {**CHAT, "messages": [{**QUESTION, "content": []}]}, "messages", "text"),
        (ChatRequest, {**CHAT, "temperature": "hot"}, "temperature", "number"),
        (ChatRequest, {**CHAT, "temperature": float("nan")}, None, "NaN"),
        (ChatRequest, {**CHAT, "logit_bias": {"1": float("inf")}}, None, "NaN"),
        (ChatRequest, {**CHAT, "seed": 2**64}, None, "64 bits"),
        (ChatRequest, {**CHAT, "max_tokens": 0}, "max_tokens", "greater"),
        (ChatRequest, {**CHAT, "n": 0}, "n", "greater"),
        (ChatRequest, {**CHAT, "n": 17}, "n", "less"),
        (ChatRequest, {**CHAT, "stop": 5}, "stop", "string"),
        (ChatRequest, {**CHAT, "stop": [5]}, "stop", "string"),
        (ChatRequest, {**CHAT, "tool_choice": 5}, "tool_choice", "string"),
        (ChatRequest, {**CHAT, "stream": "maybe"}, "stream", "boolean"),
        (ChatRequest, {**CHAT, "stream": 1}, "stream", "boolean"),
        (ChatRequest, {**CHAT, "temperature": "0.5"}, "temperature", "number"),
        (ChatRequest, {**CHAT, "max_tokens": "5"}, "max_tokens", "integer"),
        (ChatRequest, {**CHAT, "n": True}, "n", "integer"),
        (ChangeTenantRequest, {"limits": {"tasks": False}}, "limits.tasks", "integer"),
        (ChatRequest, {**CHAT, "stream_options": {"include_usage": True}}, None, "stream"),
        (ChatRequest, {**CHAT, "x\ud800": 1}, None, "surrogate"),
        (ChatRequest, {**CHAT, "\u2028 né": 1}, "\u2028 né", "unknown field"),
        (ChatRequest, {**CHAT, "system_prompt": "x"}, "system_prompt", "keep"),
        (CompletionRequest, {**TEXT, "system_prompt": "keep"}, "system_prompt", "unknown field"),
        (ChatRequest, {**CHAT, "loragen": {"switch": "x"}}, "loragen.switch", "now"),
        (ChatRequest, {**CHAT, "loragen": {"mode": "fast"}}, "loragen.mode", "compiled"),
        (ChatRequest, {**CHAT, "loragen": {"made": "base"}}, "loragen.made", "unknown field"),
        (ChatRequest, {**CHAT, "loragen": "base"}, "loragen", "dictionary"),
        (CompletionRequest, {"model": "demo"}, "prompt", "required"),
        (CompletionRequest, {**TEXT, "prompt": {"a": 1}}, "prompt", "string"),
        (CompletionRequest, {**TEXT, "prompt": [1, "a"]}, "prompt", "string"),
        (CompletionRequest, {**TEXT, "messages": [QUESTION]}, "messages", "unknown field"),
        (CompletionRequest, {**TEXT, "suffix": "x"}, "suffix", "unknown field"),
        (CompletionRequest, {**TEXT, "best_of": 2}, "best_of", "unknown field"),
    ],
)
def test_a_bad_body_is_refused_by_field_and_reason(
    kind: type[ApiRequest], body: dict[str, Any], param: str | None, says: str
) -> None:
    error = refused(kind, body)
    assert error.param == param
    assert says in error.message
    assert "Value error" not in error.message


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
@pytest.mark.parametrize("field", sorted(CONTROL_FIELDS))
def test_fields_that_steer_the_worker_are_reserved(kind: type[ApiRequest], field: str) -> None:
    error = refused(kind, {**(CHAT if kind is ChatRequest else TEXT), field: 1})
    assert error.param == field
    assert "reserved" in error.message


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", None])
def test_parts_that_are_not_text_are_refused(kind: str | None) -> None:
    content = [{"type": "text", "text": "see"}, {"type": kind, "text": "x"}]
    error = refused(ChatRequest, {**CHAT, "messages": [{"role": "user", "content": content}]})
    assert "only text" in error.message


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "user", "content": "🦊 \u2028 ünï", "name": "ada"},
        {"role": "user", "content": ""},
    ],
)
def test_messages_pass_as_they_are(message: dict[str, Any]) -> None:
    request = ChatRequest.model_validate({**CHAT, "messages": [message]})
    assert request.upstream()["messages"] == [message]


def test_only_what_the_client_set_goes_on_and_nothing_of_ours() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    fields = {
        "temperature": None, "seed": 1, "response_format": schema, "logit_bias": {"5": -100.0},
        "stop": ["a"], "metadata": {"k": "v"}, "top_k": -1, "stream": True,
        "stream_options": {"include_usage": True}, "n": 2, "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    request = ChatRequest.model_validate(
        {**CHAT, **fields, "task_id": "ada", "loragen": {}, "system_prompt": "keep"}
    )
    assert request.upstream() == {"messages": [QUESTION], **fields}


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_a_completion_takes_every_kind_of_prompt(prompt: Any) -> None:
    request = CompletionRequest.model_validate({**TEXT, "prompt": prompt})
    assert request.upstream()["prompt"] == prompt
