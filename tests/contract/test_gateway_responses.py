"""`/v1/responses` through the official client: the answers of chat completions in another form."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.fakes.fake_worker import ANSWER_ID
from tests.fakes.gateway import MODEL, Gateway, expected_recipe

pytestmark = pytest.mark.redis

PROMPT = "You are Ada. 🦊"
COMPILED = f"[recipe {expected_recipe(PROMPT).id}] [system none] hello"
TOOL: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "description": "Look it up.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"ok": {"type": "boolean"}}}


def ask(gate: Gateway, **fields: Any) -> Response:
    make: Any = gate.client.responses.create  # dicts stand in for typed items
    answer: Response = make(**{"model": MODEL, "input": "hello", "store": False, **fields})
    return answer


def chat_of(gate: Gateway) -> dict[str, Any]:
    """Return what the worker was asked last."""
    seen = gate.worker.seen[-1]
    assert seen.path == "/v1/chat/completions"
    return seen.body


@pytest.mark.parametrize("form", ["body", "model and id", "model and name", "header"])
def test_a_task_said_in_any_form_answers(gate: Gateway, form: str) -> None:
    task_id = gate.create(PROMPT, name="ada")["id"]
    forms: dict[str, dict[str, Any]] = {
        "body": {"extra_body": {"task_id": task_id}},
        "model and id": {"model": f"{MODEL}:{task_id}"},
        "model and name": {"model": f"{MODEL}:ada"},
        "header": {"extra_headers": {"X-Task-Id": task_id}},
    }
    raw = gate.client.responses.with_raw_response.create(
        **{"model": MODEL, "input": "hello", **forms[form]}
    )
    answer = raw.parse()
    assert answer.output_text == COMPILED
    assert (answer.model, answer.status, answer.error) == (MODEL, "completed", None)
    assert answer.id.startswith("resp_")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 5)
    assert answer.usage.total_tokens == 9
    assert answer.usage.model_dump()["loragen"]["task_id"] == task_id
    assert raw.headers["x-loragen-mode"] == "compiled"
    assert raw.headers["x-loragen-task"] == task_id
    assert raw.headers["x-request-id"]
    (seen,) = gate.worker.seen
    assert seen.recipe_id == expected_recipe(PROMPT).id
    assert "store" not in seen.body


def test_a_stream_brings_typed_events_and_the_same_response(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.worker.tail = " \u2028 ünï"
    events: Any = list(
        gate.client.responses.create(model=f"{MODEL}:{task_id}", input="hello", stream=True)
    )
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [event.type for event in events if event not in deltas] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in deltas)
    assert text == COMPILED + gate.worker.tail
    final = events[-1].response
    assert final.output_text == text
    assert final.id == events[0].response.id
    assert (events[0].response.status, events[0].response.output) == ("in_progress", [])
    assert {event.item_id for event in deltas} == {final.output[0].id}
    assert final.usage.input_tokens == 4
    assert final.usage.model_dump()["loragen"]["mode"] == "compiled"


def test_the_clients_own_stream_helper_understands_it(gate: Gateway) -> None:
    with gate.client.responses.stream(model=MODEL, input="hello") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert "response.output_text.delta" in kinds
    assert final.output_text == "[recipe none] [system none] hello"


def test_streams_carry_their_headers_and_end_without_done(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    body = {"model": MODEL, "input": "hello", "stream": True, "task_id": task_id}
    reply = gate.http.post("/v1/responses", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-loragen-mode"] == "compiled"
    lines = [line for line in reply.text.split("\n") if line]
    assert lines[0] == "event: response.created"
    assert lines[-2] == "event: response.completed"
    assert "[DONE]" not in reply.text


@pytest.mark.parametrize("knob", ["die_after", "error_after"])
def test_a_stream_that_fails_half_way_ends_with_an_error_event(gate: Gateway, knob: str) -> None:
    setattr(gate.worker, knob, 2)
    reply = gate.http.post("/v1/responses", json={"model": MODEL, "input": "hi", "stream": True})
    assert reply.status_code == 200
    *_, name, data = [line for line in reply.text.split("\n") if line]
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert (error["type"], error["code"]) == ("error", "worker_unavailable")
    assert error["error"]["message"] == error["message"]
    assert "secret" not in reply.text
    assert "response.completed" not in reply.text


def test_the_official_client_does_not_take_a_broken_stream_for_whole(gate: Gateway) -> None:
    gate.worker.die_after = 2
    stream = gate.client.responses.create(model=MODEL, input="hello", stream=True)
    with pytest.raises(openai.APIError, match="lost while answering"):
        list(stream)


def test_instructions_are_the_system_message(gate: Gateway) -> None:
    answer = ask(gate, instructions="Be brief.")
    assert answer.output_text == "[recipe none] [system Be brief.] hello"
    assert answer.instructions == "Be brief."
    assert answer.usage is not None
    assert answer.usage.model_dump()["loragen"]["mode"] == "prompt"


def test_instructions_can_be_compiled_without_a_task(gate: Gateway) -> None:
    answer = ask(gate, instructions=PROMPT, extra_body={"system_prompt": "compile"})
    assert answer.output_text == COMPILED
    assert answer.usage is not None
    assert answer.usage.model_dump()["loragen"]["mode"] == "compiled"


def test_a_conversation_with_calls_becomes_one_of_chat_completions(gate: Gateway) -> None:
    answer = ask(
        gate,
        instructions="Be brief.",
        input=[
            {"role": "developer", "content": "Use the tool."},
            {"role": "user", "content": [{"type": "input_text", "text": "How is"},
                                         {"type": "input_text", "text": "Bern?"}]},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": "Wait.", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
             "arguments": "{}", "status": "completed"},
            {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "snow"},
            {"type": "function_call_output", "call_id": "call_2",
             "output": [{"type": "input_text", "text": "rain"}]},
        ],
        tools=[TOOL], tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False, max_output_tokens=7, temperature=0.5, top_p=0.9,
        text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
        metadata={"k": "v"}, user="me",
    )  # fmt: skip
    call = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    function = {key: value for key, value in TOOL.items() if key != "type"}
    assert chat_of(gate) == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Use the tool."},
            {"role": "user", "content": "How is\nBern?"},
            {"role": "assistant", "content": "Wait.",
             "tool_calls": [{"id": "call_1", **call}, {"id": "call_2", **call}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "snow"},
            {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
        ],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False, "max_tokens": 7, "temperature": 0.5, "top_p": 0.9,
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}
        },
        "user": "me",
    }  # fmt: skip
    assert answer.tools[0].model_dump(include=set(TOOL)) == TOOL
    assert answer.metadata == {"k": "v"}
    assert (answer.max_output_tokens, answer.temperature, answer.top_p) == (7, 0.5, 0.9)
    assert answer.parallel_tool_calls is False
    assert answer.text is not None
    assert answer.text.format is not None
    assert answer.text.format.type == "json_schema"


CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}},
    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"b": 2}'}},
]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ID = ANSWER_ID.decode()


def test_calls_of_the_model_are_items(gate: Gateway) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": CALLS}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    gate.worker.raw_answer = json.dumps(
        {"id": ID, "model": MODEL, "choices": [choice], "usage": USAGE}
    ).encode()
    answer = ask(gate, tools=[TOOL])
    found: list[Any] = list(answer.output)
    assert [(item.type, item.call_id, item.name, item.arguments) for item in found] == [
        ("function_call", "call_1", "weather", '{"a": 1}'),
        ("function_call", "call_2", "weather", '{"b": 2}'),
    ]
    assert (answer.output_text, answer.status) == ("", "completed")


def test_streamed_calls_are_items_and_their_arguments_events(gate: Gateway) -> None:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {"content": "Wait."}]
    for index, call in enumerate(CALLS):
        function: Any = call["function"]
        deltas.append({"tool_calls": [
            {"index": index, **call, "function": {"name": "weather", "arguments": ""}}
        ]})  # fmt: skip
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": part}}]}
            for part in (function["arguments"][:4], function["arguments"][4:])
        ]
    chunks: list[dict[str, Any]] = [
        {"id": ID, "model": MODEL, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks[-1]["choices"][0]["finish_reason"] = "tool_calls"
    chunks.append({"id": ID, "model": MODEL, "choices": [], "usage": USAGE})
    lines = [json.dumps(chunk, separators=(",", ":")) for chunk in chunks]
    gate.worker.raw_answer = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
    make: Any = gate.client.responses.create
    events = list(make(model=MODEL, input="hi", stream=True, tools=[TOOL]))
    output = events[-1].response.output
    assert [item.type for item in output] == ["message", "function_call", "function_call"]
    assert [item.arguments for item in output[1:]] == ['{"a": 1}', '{"b": 2}']
    for place in (1, 2):
        here = [event for event in events if getattr(event, "output_index", None) == place]
        kinds = [event.type.removeprefix("response.") for event in here]
        assert kinds == [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
        ]
        assert here[3].arguments == here[1].delta + here[2].delta == output[place].arguments
    assert events[-1].response.usage.total_tokens == 5


def test_pieces_of_calls_and_text_by_turns_are_whole_items(gate: Gateway) -> None:
    def began(index: int) -> dict[str, Any]:
        function = {"name": "weather", "arguments": ""}
        return {"tool_calls": [{"index": index, **CALLS[index], "function": function}]}

    def piece(index: int, part: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, "function": {"arguments": part}}]}

    deltas: list[dict[str, Any]] = [
        began(0), piece(0, '{"a"'), {"content": "Wait, "}, began(1), piece(0, ": 1}"),
        {"content": "there."}, piece(1, '{"b": 2}'),
    ]  # fmt: skip
    chunks = [
        {"id": ID, "model": MODEL, "choices": [{"index": 0, "delta": delta}]} for delta in deltas
    ]
    lines = [json.dumps(chunk, separators=(",", ":")) for chunk in chunks]
    gate.worker.raw_answer = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
    make: Any = gate.client.responses.create
    events = list(make(model=MODEL, input="hi", stream=True, tools=[TOOL]))
    output = events[-1].response.output
    calls = [item.arguments for item in output if item.type == "function_call"]
    assert calls == ['{"a": 1}', '{"b": 2}']
    assert events[-1].response.output_text == "Wait, there."
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert sorted(item.id for item in done) == sorted(item.id for item in output)
    assert {item.status for item in output} == {"completed"}


def test_an_answer_cut_off_by_its_limit_says_so(gate: Gateway) -> None:
    message = {"role": "assistant", "content": "half"}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    gate.worker.raw_answer = json.dumps(
        {"id": ID, "model": MODEL, "choices": [choice], "usage": USAGE}
    ).encode()
    answer = ask(gate, max_output_tokens=1)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("raw", [b"[]", b"{}", b'{"choices":[]}', b"x"])
def test_an_answer_that_cannot_be_read_is_a_503(gate: Gateway, raw: bytes) -> None:
    gate.worker.raw_answer = raw
    reply = gate.http.post("/v1/responses", json={"model": MODEL, "input": "hi"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "worker_unavailable")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input"),
        ({"input": [{"role": "user"}]}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"type": "function_call", "name": "x", "arguments": "{}"}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "name": "f", "strict": 0.0}]}, "tools.0.strict"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": 1}}},
            "text.format",
        ),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"priority": 1}, "priority"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_names_the_field(
    gate: Gateway, fields: dict[str, Any], param: str
) -> None:
    reply = gate.http.post("/v1/responses", json={"model": MODEL, "input": "hi", **fields})
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "invalid_request")
    assert error["param"] == param or error["param"].startswith(f"{param}.")
    assert gate.worker.seen == []


def test_absent_memory_may_be_said(gate: Gateway) -> None:
    nothing = {"store": False, "background": False, "previous_response_id": None}
    assert ask(gate, extra_body={**nothing, "conversation": None, "truncation": None}).output_text


def test_refusals_of_the_worker_name_the_fields_of_this_call(gate: Gateway) -> None:
    reply = gate.http.post(
        "/v1/responses", json={"model": MODEL, "input": "hi", "max_output_tokens": 10**9}
    )
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "input"
    reply = gate.http.post("/v1/responses", json={"model": f"{MODEL}:nobody", "input": "hi"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "task_not_found")
