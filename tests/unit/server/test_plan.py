"""What reaches a worker: the recipe, the prompt, or neither, and what it is called."""

from typing import Any

import pytest

from loragen.errors import InvalidRequest, Unavailable
from loragen.recipe import Recipe
from loragen.task import FallbackReason, Policy, Task
from loragen.tools import compile_text, parse_tools
from server.plan import plan
from server.requests import ChatRequest, CompletionRequest
from server.resolution import Resolution
from tests.contract.store_contract import task_of
from tests.fakes.stub_generator import recipe_of

QUESTION = {"role": "user", "content": "hello"}
SYSTEM = {"role": "system", "content": "Be brief."}
RECIPE = recipe_of("x")
NOTHING = Resolution()
COMPILED = {"chat_template_kwargs": {"loragen_compiled": True}}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock"}}
WEATHER: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "demo:ada", "messages": [QUESTION], **fields})


def text(prompt: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "demo:ada", "prompt": prompt})


def task(fallback: str = "prompt") -> Task:
    policy = Policy.model_validate({"fallback": fallback})
    return task_of(0, prompt="You are Ada.", policy=policy, fallback_reason="compile_timeout")


def ready() -> Resolution:
    return Resolution(task(), RECIPE)


def fallen(fallback: str = "prompt", reason: FallbackReason = "compile_timeout") -> Resolution:
    return Resolution(task(fallback), None, reason)


def test_without_a_task_a_request_passes_as_it_is() -> None:
    planned = plan(chat(messages=[SYSTEM, QUESTION], temperature=0, seed=None), "demo", NOTHING)
    assert planned.body == {
        "model": "demo", "messages": [SYSTEM, QUESTION], "temperature": 0, "seed": None
    }  # fmt: skip
    assert planned.recipe is None
    assert planned.provenance.headers() == {"x-loragen-mode": "base"}


def test_with_a_recipe_the_prompt_stays_here() -> None:
    planned = plan(chat(task_id="x", loragen={}), "demo", ready())
    assert planned.body == {"model": "demo", "messages": [QUESTION], **COMPILED}
    assert planned.recipe == RECIPE
    assert planned.provenance.usage() == {
        "mode": "compiled",
        "task_id": task().id,
        "recipe_id": RECIPE.id,
        "saved_prompt_tokens": task().prompt_tokens,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [SYSTEM, QUESTION]},
        {"messages": [QUESTION, {"role": "developer", "content": "x"}, QUESTION]},
    ],
)
def test_what_stands_beside_the_task_goes_with_the_recipe(fields: dict[str, Any]) -> None:
    planned = plan(chat(**fields), "demo", ready())
    assert planned.body == {"model": "demo", "messages": [QUESTION], **COMPILED, **fields}
    assert planned.recipe == RECIPE
    assert planned.provenance.mode == "hybrid"
    assert planned.provenance.saved_prompt_tokens == task().prompt_tokens


def with_tools(recipe: Recipe | None = RECIPE, *, prompt: str = "You are Ada.") -> Resolution:
    """Return a resolution whose task has tools."""
    tools = parse_tools([CLOCK, WEATHER])
    reason: FallbackReason | None = None if recipe else "compile_timeout"
    return Resolution(task().model_copy(update={"tools": tools, "prompt": prompt}), recipe, reason)


def test_the_tools_of_a_task_reach_the_worker_but_not_the_context() -> None:
    planned = plan(chat(tool_choice="required"), "demo", with_tools())
    assert planned.provenance.mode == "compiled"
    assert planned.body["tools"] == [CLOCK, WEATHER]
    assert planned.body["tool_choice"] == "required"
    assert planned.body["chat_template_kwargs"] == COMPILED["chat_template_kwargs"]


@pytest.mark.parametrize("again", [[CLOCK, WEATHER], [WEATHER, CLOCK]])
def test_a_client_may_send_the_tools_of_its_task_again(again: list[dict[str, Any]]) -> None:
    planned = plan(chat(tools=again), "demo", with_tools())
    assert planned.provenance.mode == "compiled"
    assert planned.body == {"model": "demo", "messages": [QUESTION], "tools": again, **COMPILED}


@pytest.mark.parametrize("other", [[CLOCK], [{"type": "function"}], [{"type": "web_search"}]])
def test_other_tools_are_printed_beside_the_recipe(other: list[dict[str, Any]]) -> None:
    for resolution in (ready(), with_tools()):
        planned = plan(chat(tools=other), "demo", resolution)
        assert planned.provenance.mode == "hybrid"
        assert planned.recipe == RECIPE
        assert planned.body == {"model": "demo", "messages": [QUESTION], "tools": other}


def test_without_a_recipe_tools_are_printed_with_the_prompt() -> None:
    planned = plan(chat(), "demo", with_tools(None))
    system = {"role": "system", "content": "You are Ada."}
    assert planned.body == {
        "model": "demo", "messages": [system, QUESTION], "tools": [CLOCK, WEATHER]
    }  # fmt: skip
    assert plan(chat(tools=[CLOCK]), "demo", with_tools(None)).body["tools"] == [CLOCK]
    alone = plan(chat(), "demo", with_tools(None, prompt=""))
    assert alone.body["messages"] == [QUESTION]


def test_a_completion_reads_prompt_and_tools_as_the_generator_does() -> None:
    planned = plan(text("go"), "demo", with_tools(None))
    tools = parse_tools([CLOCK, WEATHER])
    assert planned.body["prompt"] == compile_text("You are Ada.", tools) + "\n\ngo"


def test_without_a_recipe_the_prompt_comes_first_and_the_reason_is_said() -> None:
    planned = plan(chat(), "demo", fallen())
    assert planned.body["messages"] == [{"role": "system", "content": "You are Ada."}, QUESTION]
    assert planned.recipe is None
    assert planned.provenance.headers() == {
        "x-loragen-mode": "prompt",
        "x-loragen-task": task().id,
        "x-loragen-fallback-reason": "compile_timeout",
    }
    assert planned.provenance.usage()["saved_prompt_tokens"] == 0


def test_without_a_recipe_leading_system_text_follows_the_prompt_in_one_message() -> None:
    parts = [{"type": "text", "text": "Today"}, {"type": "text", "text": "is Monday."}]
    later = {"role": "system", "content": "Hurry."}
    messages = [SYSTEM, {"role": "developer", "content": parts}, QUESTION, later]
    planned = plan(chat(messages=messages), "demo", fallen())
    joined = "You are Ada.\n\nBe brief.\n\nToday\nis Monday."
    assert planned.body["messages"] == [{"role": "system", "content": joined}, QUESTION, later]
    assert planned.provenance.mode == "prompt"


def test_a_task_may_do_without_or_refuse() -> None:
    planned = plan(chat(), "demo", fallen("none"))
    assert planned.body["messages"] == [QUESTION]
    assert planned.provenance.mode == "base"
    with pytest.raises(Unavailable, match="compile_timeout") as caught:
        plan(chat(), "demo", fallen("error"))
    assert caught.value.status == 503
    assert caught.value.retry_after is not None


def test_a_text_gets_the_prompt_in_front() -> None:
    assert plan(text("go"), "demo", fallen()).body["prompt"] == "You are Ada.\n\ngo"
    assert plan(text(["a", "b"]), "demo", fallen()).body["prompt"] == [
        "You are Ada.\n\na",
        "You are Ada.\n\nb",
    ]
    assert plan(text("go"), "demo", ready()).body["prompt"] == "go"
    assert plan(text("go"), "demo", NOTHING).path == "/v1/completions"


@pytest.mark.parametrize("recipe", [RECIPE, None])
@pytest.mark.parametrize("prompt", [[1, 2], [[1], [2]], []])
def test_tokens_cannot_be_served_with_a_task(prompt: Any, recipe: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(text(prompt), "demo", Resolution(task(), recipe))
    assert caught.value.param == "prompt"
    assert plan(text(prompt), "demo", NOTHING).provenance.mode == "base"


@pytest.mark.parametrize("fallback", ["prompt", "error", "none"])
@pytest.mark.parametrize(
    ("mode", "sent"),
    [("prompt", [{"role": "system", "content": "You are Ada."}, QUESTION]), ("base", [QUESTION])],
)
def test_a_request_may_do_without_the_recipe(mode: str, sent: Any, fallback: str) -> None:
    planned = plan(chat(loragen={"mode": mode}), "demo", fallen(fallback, "requested"))
    assert planned.body == {"model": "demo", "messages": sent}
    assert planned.provenance.mode == mode
    assert planned.provenance.fallback_reason == "requested"


@pytest.mark.parametrize("fallback", ["prompt", "error", "none"])
@pytest.mark.parametrize("mode", ["compiled", "hybrid"])
def test_a_recipe_that_is_demanded_and_missing_is_an_error(mode: str, fallback: str) -> None:
    request = chat(loragen={"mode": mode})
    with pytest.raises(Unavailable, match="compile_timeout") as caught:
        plan(request, "demo", fallen(fallback))
    assert caught.value.param == "loragen.mode"
    assert caught.value.retry_after is not None
    with pytest.raises(InvalidRequest, match="no_generator"):  # trying again would not help
        plan(request, "demo", fallen(fallback, "no_generator"))


@pytest.mark.parametrize(
    ("demanded", "messages", "resolution"),
    [
        ("compiled", [SYSTEM, QUESTION], ready()),
        ("hybrid", [QUESTION], ready()),
        ("compiled", [QUESTION], NOTHING),
        ("hybrid", [QUESTION], NOTHING),
        ("prompt", [QUESTION], NOTHING),
    ],
)
def test_a_mode_that_the_request_rules_out_is_refused(
    demanded: str, messages: Any, resolution: Resolution
) -> None:
    with pytest.raises(InvalidRequest, match=demanded) as caught:
        plan(chat(messages=messages, loragen={"mode": demanded}), "demo", resolution)
    assert caught.value.param == "loragen.mode"


LATER = {"role": "developer", "content": "Hurry."}


@pytest.mark.parametrize(
    ("rest", "mode"), [([QUESTION], "compiled"), ([QUESTION, LATER, QUESTION], "hybrid")]
)
def test_the_leading_system_text_goes_when_it_is_compiled(rest: Any, mode: str) -> None:
    written = Resolution(task("error"), RECIPE, is_written=True)
    planned = plan(chat(messages=[SYSTEM, SYSTEM, *rest]), "demo", written)
    assert planned.body["messages"] == rest
    assert planned.recipe == RECIPE
    assert planned.provenance.mode == mode
    assert planned.provenance.saved_prompt_tokens == task().prompt_tokens


@pytest.mark.parametrize("of", [None, task("error"), task("none")])
def test_system_text_without_a_recipe_passes_as_it_is(of: Task | None) -> None:
    written = Resolution(of, None, "budget_spent", is_written=True)
    messages = [SYSTEM, SYSTEM, QUESTION, LATER]
    planned = plan(chat(messages=messages), "demo", written)
    assert planned.body["messages"] == messages
    assert planned.provenance.mode == "prompt"
    assert planned.provenance.fallback_reason == "budget_spent"
    with pytest.raises(Unavailable, match="budget_spent"):
        plan(chat(messages=messages, loragen={"mode": "compiled"}), "demo", written)


@pytest.mark.parametrize("mode", [None, "prompt", "compiled", "hybrid"])
@pytest.mark.parametrize("fallback", ["prompt", "error", "none"])
def test_the_operator_forces_the_prompt_whatever_is_demanded(
    mode: str | None, fallback: str
) -> None:
    request = chat(messages=[SYSTEM, QUESTION], loragen={"mode": mode})
    planned = plan(request, "demo", fallen(fallback, "operator_forced"))
    assert planned.body["messages"][0]["content"] == "You are Ada.\n\nBe brief."
    assert planned.provenance.headers()["x-loragen-fallback-reason"] == "operator_forced"
