"""Plan: what to send to a worker for one request, and what that is called.

compiled  the messages as they are, the recipe beside them, no prompt token
hybrid    the recipe, and in context system text or tools that are not the task's
prompt    the prompt in context (fallback)
base      neither recipe nor prompt of a task: the messages as they are

The tools of a request stand for those of its task; where it brings none, or the same, the task's go
to the worker, for its parser and grammar. What of them is printed is the template's business: the
compiled one prints none, the model's own all. A pure function of request, model and resolution.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from loragen.errors import InvalidRequest, LoragenError, Unavailable
from loragen.recipe import Recipe
from loragen.task import FallbackReason, Task
from loragen.tools import compile_text, same_tools, try_parse_tools
from loragen.wire import COMPILED_SWITCH
from server.answer import Mode, Provenance
from server.messages import Message, has_system, join_prompts, split_prompt, text_of
from server.requests import ChatRequest, CompletionRequest
from server.resolution import Resolution

_FINAL: Final[frozenset[FallbackReason]] = frozenset({"no_generator", "prompt_too_long"})
"""Reasons that another try will not mend."""
_TOKENS_AROUND: Final = 16
"""What templates print before, after and between messages at most: roles and ends are 3 to 10."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request for a worker."""

    path: str
    body: dict[str, Any]
    recipe: Recipe | None
    provenance: Provenance

    @property
    def most_prompt_tokens(self) -> int | None:
        """The most that a worker can read by the compiled template; None where by another one.

        A token is a byte or more of what messages say, and templates print little around them.
        """
        if not (self.body.get("chat_template_kwargs") or {}).get(COMPILED_SWITCH):
            return None
        said = sum(_bytes_said(message) for message in self.body["messages"])
        return said + _TOKENS_AROUND * (1 + len(self.body["messages"]))


def plan(request: ChatRequest | CompletionRequest, model: str, resolution: Resolution) -> Plan:
    """Decide how a request is served.

    Raises:
        InvalidRequest: the request cannot be served with a task, or not in the mode it demands.
        Unavailable: there is no recipe, and the request or the task's policy demands one.
    """
    task, recipe = resolution.task, resolution.recipe
    if task is not None and isinstance(request, CompletionRequest):
        request.texts()
    mode = _mode(request, resolution)
    body = {**request.upstream(), "model": model, **_rewritten(request, mode, resolution)}
    provenance = Provenance(
        mode=mode,
        task_id=task.id if task else None,
        recipe_id=recipe.id if recipe else None,
        saved_prompt_tokens=task.prompt_tokens if task and recipe else 0,
        fallback_reason=resolution.fallback_reason,
    )
    path = "/v1/chat/completions" if isinstance(request, ChatRequest) else "/v1/completions"
    return Plan(path, body, recipe, provenance)


def _bytes_said(message: Message) -> int:
    calls = message.get("tool_calls")
    text = text_of(message) + (json.dumps(calls, ensure_ascii=False) if calls else "")
    return len(text.encode("utf-8", "surrogatepass"))


def _mode(request: ChatRequest | CompletionRequest, resolution: Resolution) -> Mode:
    """Return the mode a request is served in, which is the one it demands if it demands one."""
    demanded = request.loragen.mode
    if resolution.recipe is not None:
        mode: Mode = "hybrid" if _has_residue(request, resolution) else "compiled"
    elif resolution.is_written or resolution.task is not None:
        mode = _without_recipe(demanded, resolution)
    else:
        mode = "base"
    if demanded not in (None, mode) and resolution.fallback_reason != "operator_forced":
        raise _impossible(demanded, mode)
    return mode


def _without_recipe(demanded: Mode | None, resolution: Resolution) -> Mode:
    """Return the mode of a prompt that has no recipe, or has one that must not be used."""
    task, reason = resolution.task, resolution.fallback_reason
    if demanded == "base":
        return "base"
    if reason in ("requested", "operator_forced"):
        return "prompt"
    if demanded in ("compiled", "hybrid"):
        raise _unmet(resolution)
    if task is None or resolution.is_written:
        return "prompt"  # a policy is for those who name the task
    if task.policy.fallback == "error":
        raise Unavailable(
            f"task {task.id!r} has no recipe ({reason}) and its policy forbids a fallback",
            param="task_id",
            retry_after=1.0,
        )
    return "base" if task.policy.fallback == "none" else "prompt"


def _has_residue(request: ChatRequest | CompletionRequest, resolution: Resolution) -> bool:
    """Whether a request brings system text or tools beside its task."""
    if isinstance(request, CompletionRequest):
        return False
    messages = request.messages
    if resolution.is_written:
        _, messages = split_prompt(messages)
    return _has_other_tools(request, resolution.task) or has_system(messages)


def _has_other_tools(request: ChatRequest, task: Task | None) -> bool:
    if not request.tools:
        return False
    tools = try_parse_tools(request.tools)
    return tools is None or task is None or not same_tools(tools, task.tools)


def _unmet(resolution: Resolution) -> LoragenError:
    message = f"there is no recipe of this prompt ({resolution.fallback_reason})"
    if resolution.fallback_reason in _FINAL:
        return InvalidRequest(message, param="loragen.mode")
    return Unavailable(message, param="loragen.mode", retry_after=1.0)


def _impossible(demanded: Mode | None, mode: Mode) -> InvalidRequest:
    why = {
        "base": "the request has neither task nor leading system text",
        "compiled": "the request brings no system text or tools beside its task",
        "hybrid": "the request brings system text or tools beside its task",
    }[mode]
    return InvalidRequest(f"mode {demanded!r} is impossible: {why}", param="loragen.mode")


def _rewritten(
    request: ChatRequest | CompletionRequest, mode: Mode, resolution: Resolution
) -> dict[str, Any]:
    """Return the fields that bring prompt and tools into a request, or take them out."""
    task = resolution.task
    if task is not None and resolution.recipe is not None:
        return _compiled(request, task, is_written=resolution.is_written)
    if task is not None and mode == "prompt" and not resolution.is_written:
        return _prompted(request, task)
    return {}


def _compiled(
    request: ChatRequest | CompletionRequest, task: Task, *, is_written: bool
) -> dict[str, Any]:
    if isinstance(request, CompletionRequest):
        return {}
    fields = _task_tools(request, task)
    if is_written:
        _, fields["messages"] = split_prompt(request.messages)
    # Other tools than the task's must be printed, and only the model's own template can.
    if not _has_other_tools(request, task):
        fields["chat_template_kwargs"] = {COMPILED_SWITCH: True}
    return fields


def _task_tools(request: ChatRequest, task: Task) -> dict[str, Any]:
    if request.tools or not task.tools:
        return {}
    return {"tools": [tool.body() for tool in task.tools]}


def _prompted(request: ChatRequest | CompletionRequest, task: Task) -> dict[str, Any]:
    if isinstance(request, ChatRequest):
        residue, messages = split_prompt(request.messages)
        text = join_prompts(task.prompt, residue)
        system = [{"role": "system", "content": text}] if text else []
        return {"messages": [*system, *messages], **_task_tools(request, task)}
    texts, prompt = request.texts(), compile_text(task.prompt, task.tools)
    if isinstance(texts, str):
        return {"prompt": f"{prompt}\n\n{texts}"}
    return {"prompt": [f"{prompt}\n\n{text}" for text in texts]}
