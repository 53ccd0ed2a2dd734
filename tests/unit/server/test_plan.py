"""What reaches a worker: the recipe, the prompt, or neither, and what it is called."""

from typing import Any

import pytest

from loragen.errors import InvalidRequest, Unavailable
from loragen.task import Policy, Task
from server.memory import Resolved
from server.plan import plan
from server.requests import ChatRequest, CompletionRequest
from tests.contract.store_contract import task_of
from tests.fakes.stub_generator import recipe_of

QUESTION = {"role": "user", "content": "hello"}
RECIPE = recipe_of("x")


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "demo:ada", "messages": [QUESTION], **fields})


def text(prompt: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "demo:ada", "prompt": prompt})


def task(fallback: str = "prompt") -> Task:
    policy = Policy.model_validate({"fallback": fallback})
    return task_of(0, prompt="You are Ada.", policy=policy, fallback_reason="compile_timeout")


def test_without_a_task_a_request_passes_as_it_is() -> None:
    system = {"role": "system", "content": "Be brief."}
    planned = plan(chat(messages=[system, QUESTION], temperature=0, seed=None), "demo", None)
    assert planned.body == {
        "model": "demo", "messages": [system, QUESTION], "temperature": 0, "seed": None
    }  # fmt: skip
    assert planned.recipe is None
    assert planned.provenance.headers() == {"x-loragen-mode": "base"}


def test_with_a_recipe_the_prompt_stays_here() -> None:
    planned = plan(chat(task_id="x"), "demo", Resolved(task(), RECIPE))
    assert planned.body == {"model": "demo", "messages": [QUESTION]}
    assert planned.recipe == RECIPE.text
    assert planned.provenance.usage() == {
        "mode": "compiled",
        "task_id": task().id,
        "recipe_id": RECIPE.id,
        "saved_prompt_tokens": task().prompt_tokens,
    }


def test_without_a_recipe_the_prompt_comes_first_and_the_reason_is_said() -> None:
    planned = plan(chat(), "demo", Resolved(task(), None))
    assert planned.body["messages"] == [{"role": "system", "content": "You are Ada."}, QUESTION]
    assert planned.recipe is None
    assert planned.provenance.headers() == {
        "x-loragen-mode": "prompt",
        "x-loragen-task": task().id,
        "x-loragen-fallback-reason": "compile_timeout",
    }
    assert planned.provenance.usage()["saved_prompt_tokens"] == 0


def test_a_task_may_do_without_or_refuse() -> None:
    planned = plan(chat(), "demo", Resolved(task("none"), None))
    assert planned.body["messages"] == [QUESTION]
    assert planned.provenance.mode == "base"
    with pytest.raises(Unavailable, match="compile_timeout") as caught:
        plan(chat(), "demo", Resolved(task("error"), None))
    assert caught.value.status == 503
    assert caught.value.retry_after is not None


def test_a_text_gets_the_prompt_in_front() -> None:
    fallen = Resolved(task(), None)
    assert plan(text("go"), "demo", fallen).body["prompt"] == "You are Ada.\n\ngo"
    assert plan(text(["a", "b"]), "demo", fallen).body["prompt"] == [
        "You are Ada.\n\na",
        "You are Ada.\n\nb",
    ]
    assert plan(text("go"), "demo", Resolved(task(), RECIPE)).body["prompt"] == "go"
    assert plan(text("go"), "demo", None).path == "/v1/completions"


@pytest.mark.parametrize("recipe", [RECIPE, None])
@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat(messages=[{"role": "system", "content": "x"}, QUESTION]), "messages"),
        (chat(messages=[QUESTION, {"role": "developer", "content": "x"}]), "messages"),
        (chat(tools=[{"type": "function"}]), "tools"),
        (text([1, 2]), "prompt"),
        (text([[1], [2]]), "prompt"),
        (text([]), "prompt"),
    ],
)
def test_what_cannot_be_served_with_a_task_is_refused(
    request_: ChatRequest | CompletionRequest, param: str, recipe: Any
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(request_, "demo", Resolved(task(), recipe))
    assert caught.value.param == param
    assert plan(request_, "demo", None).provenance.mode == "base"
