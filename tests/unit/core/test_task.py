"""The record of a task never says its prompt, and a name never looks like an id."""

import pytest
from pydantic import TypeAdapter, ValidationError

from loragen.names import Name
from loragen.task import Task
from loragen.wire import CompileRequest

CANARY = "SECRET-PROMPT"


def test_a_prompt_is_neither_in_the_record_nor_in_its_representation() -> None:
    task = Task(
        id="task_x", tenant="t", edge_model="m", prompt=CANARY, created_at=1, prompt_tokens=1
    )
    assert CANARY not in task.model_dump_json()
    assert CANARY not in repr(task)
    assert CANARY not in repr(CompileRequest(edge_model="m", prompt=CANARY))


def test_a_validation_error_does_not_quote_what_it_refuses() -> None:
    with pytest.raises(ValidationError) as record:
        Task.model_validate({"prompt": [CANARY]})
    with pytest.raises(ValidationError) as request:
        CompileRequest.model_validate({"edge_model": "m", "prompt": [CANARY]})
    assert CANARY not in str(record.value) + str(request.value)


@pytest.mark.parametrize("name", ["a", "ada.v2", "0-9_x", "task_short", "a" * 63])
def test_a_name_is_a_short_lower_case_word(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize(
    "name", ["", "Ada", "-a", ".a", "a b", "a:b", "a/b", "é", "a\n", "a" * 64, "task_" + "a" * 26]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)
