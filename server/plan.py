"""Plan: what to send to a worker for one request, and what that is called.

compiled  the messages as they are, the recipe beside them, no prompt token
hybrid    the recipe, and in the messages system text or tools that are not the task's
prompt    the prompt in context (fallback)
base      neither recipe nor prompt of a task: the messages as they are

A pure function of request, model and resolution.
"""

from dataclasses import dataclass
from typing import Any, Final

from loragen.errors import InvalidRequest, LoragenError, Unavailable
from loragen.task import FallbackReason
from server.answer import Mode, Provenance
from server.messages import has_system, join_prompts, split_prompt
from server.requests import ChatRequest, CompletionRequest
from server.resolution import Resolution

_FINAL: Final[frozenset[FallbackReason]] = frozenset({"no_generator", "prompt_too_long"})
"""Reasons that another try will not mend."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request for a worker."""

    path: str
    body: dict[str, Any]
    recipe: str | None
    provenance: Provenance


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
    return Plan(path, body, recipe.text if recipe else None, provenance)


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
    return bool(request.tools or has_system(messages))


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
    """Return the fields that bring the prompt into a request, or take it out."""
    if resolution.is_written:
        if resolution.recipe is None or isinstance(request, CompletionRequest):
            return {}
        _, messages = split_prompt(request.messages)
        return {"messages": messages}
    if mode == "prompt" and resolution.task is not None:
        return _prompted(request, resolution.task.prompt)
    return {}


def _prompted(request: ChatRequest | CompletionRequest, prompt: str) -> dict[str, Any]:
    if isinstance(request, ChatRequest):
        residue, messages = split_prompt(request.messages)
        system = {"role": "system", "content": join_prompts(prompt, residue)}
        return {"messages": [system, *messages]}
    texts = request.texts()
    if isinstance(texts, str):
        return {"prompt": f"{prompt}\n\n{texts}"}
    return {"prompt": [f"{prompt}\n\n{text}" for text in texts]}
