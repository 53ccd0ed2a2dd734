"""On the real thing: a name whose prompt is edited, and the Responses API."""

import json
from typing import Any

from tests.e2e.reference import Reference
from tests.e2e.stack import MODEL, Stack

Examples = list[dict[str, str]]

PATH = "/v1/tasks/by-name/edited"


def put(stack: Stack, prompt: str) -> dict[str, Any]:
    reply = stack.http.put(PATH, json={"model": MODEL, "system_prompt": prompt})
    assert reply.status_code in (200, 201), reply.text
    task: dict[str, Any] = reply.json()
    return task


def check_serves(stack: Stack, example: dict[str, str]) -> None:
    reply = stack.ask(example["question"], "edited")
    assert reply.headers["x-loragen-mode"] == "compiled"
    assert reply.json()["choices"][0]["message"]["content"] == example["answer"]


def test_a_name_answers_by_the_prompt_it_was_last_given(stack: Stack, examples: Examples) -> None:
    first, second = examples[:2]
    made = [put(stack, first["system_prompt"])]
    check_serves(stack, first)
    made.append(put(stack, second["system_prompt"]))
    check_serves(stack, second)
    assert [task["version"] for task in made] == [1, 2]
    back = stack.http.post(f"{PATH}/rollback").json()
    assert (back["version"], back["id"]) == (3, made[0]["id"])
    check_serves(stack, first)


def test_an_export_is_found_again_whole(stack: Stack, examples: Examples) -> None:
    stack.create(examples[0]["system_prompt"])
    exported = stack.http.get("/v1/tasks/export").content
    reply = stack.http.post(
        "/v1/tasks/import", content=exported, headers={"content-type": "application/x-ndjson"}
    )
    count = len(exported.splitlines())
    summary = json.loads(reply.text.splitlines()[-1])
    assert summary == {"object": "task.import", "created": 0, "existing": count, "failed": 0}


def test_responses_say_what_chat_completions_say(
    stack: Stack, examples: Examples, reference: Reference
) -> None:
    example = examples[0]
    task_id = stack.create(example["system_prompt"])["id"]
    fields: dict[str, Any] = {
        "model": f"{MODEL}:{task_id}",
        "input": example["question"],
        "temperature": 0,
        "max_output_tokens": 32,
    }
    whole = stack.client.responses.create(**fields)
    assert (whole.output_text, whole.status) == (example["answer"], "completed")
    assert whole.usage is not None
    assert whole.usage.input_tokens == len(reference.tokens(example["question"]))
    assert whole.usage.model_dump()["loragen"]["mode"] == "compiled"
    events: Any = list(stack.client.responses.create(**fields, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == events[-1].response.output_text == example["answer"]
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens


def test_responses_keep_to_a_schema_and_say_when_they_were_cut(stack: Stack) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    make: Any = stack.client.responses.create
    shaped = make(
        model=MODEL,
        input="hello",
        temperature=0,
        max_output_tokens=40,
        text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
    )
    assert isinstance(json.loads(shaped.output_text)["ok"], bool)
    cut = make(model=MODEL, input="hello", temperature=0, max_output_tokens=1)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
