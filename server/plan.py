"""Plan: what to send to a worker for one request, and what that is called.

compiled  the messages as they are, the recipe beside them, no prompt token
prompt    the task's prompt in context (fallback)
base      no task, or a task whose policy is to do without
"""

from dataclasses import dataclass
from typing import Any

from loragen.errors import InvalidRequest, Unavailable
from server.answer import Mode, Provenance
from server.memory import Resolved
from server.requests import ChatRequest, CompletionRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """A request for a worker."""

    path: str
    body: dict[str, Any]
    recipe: str | None
    provenance: Provenance


def plan(request: ChatRequest | CompletionRequest, model: str, resolved: Resolved | None) -> Plan:
    """Decide how a request is served.

    Raises:
        InvalidRequest: the request cannot be served with a task.
        Unavailable: there is no recipe and the task's policy forbids a fallback.
    """
    chat = isinstance(request, ChatRequest)
    path = "/v1/chat/completions" if chat else "/v1/completions"
    body = {**request.upstream(), "model": model}
    if resolved is None:
        return Plan(path, body, None, Provenance(mode="base"))
    _check_task_request(request)
    task = resolved.task
    if resolved.recipe is not None:
        provenance = Provenance(
            mode="compiled",
            task_id=task.id,
            recipe_id=resolved.recipe.id,
            saved_prompt_tokens=task.prompt_tokens,
        )
        return Plan(path, body, resolved.recipe.text, provenance)
    reason = task.fallback_reason or "compiling"
    if task.policy.fallback == "error":
        raise Unavailable(
            f"task {task.id!r} has no recipe ({reason}) and its policy forbids a fallback",
            param="task_id",
            retry_after=1.0,
        )
    mode: Mode = "base" if task.policy.fallback == "none" else "prompt"
    if mode == "prompt":
        body |= _prompted(request, task.prompt)
    return Plan(path, body, None, Provenance(mode=mode, task_id=task.id, fallback_reason=reason))


def _check_task_request(request: ChatRequest | CompletionRequest) -> None:
    if isinstance(request, CompletionRequest):
        request.texts()
        return
    if request.has_system:
        raise InvalidRequest(
            "a request with a task brings no system or developer message: the task is the system "
            "prompt",
            param="messages",
        )
    if request.tools:
        raise InvalidRequest("a request with a task cannot bring tools", param="tools")


def _prompted(request: ChatRequest | CompletionRequest, prompt: str) -> dict[str, Any]:
    if isinstance(request, ChatRequest):
        return {"messages": [{"role": "system", "content": prompt}, *request.messages]}
    texts = request.texts()
    if isinstance(texts, str):
        return {"prompt": f"{prompt}\n\n{texts}"}
    return {"prompt": [f"{prompt}\n\n{text}" for text in texts]}
