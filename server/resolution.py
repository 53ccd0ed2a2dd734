"""Resolution: what a request is answered with, found before it is planned."""

from dataclasses import dataclass, replace
from typing import Final, Self

from loragen.errors import InvalidRequest
from loragen.recipe import Recipe
from loragen.task import FallbackReason, Task
from loragen.tools import try_parse_tools
from server.conversation import Conversation
from server.memory import Resolved
from server.messages import split_prompt
from server.reference import TaskReference, find_task_id
from server.requests import ChatRequest, CompletionRequest
from server.services import Services

GenerationRequest = ChatRequest | CompletionRequest

_WITH_RECIPE: Final = ("compiled", "hybrid")
_WITHOUT_RECIPE: Final = ("prompt", "base")


@dataclass(frozen=True, slots=True)
class Resolution:
    """A task with its recipe or the reason why there is none to serve with; or no task at all."""

    task: Task | None = None
    recipe: Recipe | None = None
    fallback_reason: FallbackReason | None = None
    is_written: bool = False
    """The prompt is the request's own system text; there may be no task of it."""
    conversation: Conversation | None = None

    def using(self, resolved: Resolved) -> Self:
        """Return the resolution with what was resolved for its task."""
        task, recipe = resolved.task, resolved.recipe
        reason = None if recipe is not None else task.fallback_reason or "compiling"
        return replace(self, task=task, recipe=recipe, fallback_reason=reason)

    def without_recipe(self, reason: FallbackReason) -> Self:
        """Return the resolution without the recipe there may be."""
        return replace(self, recipe=None, fallback_reason=reason)


async def resolve_request(
    request: GenerationRequest, parts: Services, owner: str, reference: TaskReference
) -> Resolution:
    """Return what a request is to be answered with.

    Raises:
        InvalidRequest: the request contradicts itself.
        TaskNotFound, StoreUnavailable: see `Resolver.resolve`.
    """
    _check_options(request, has_task=reference.task is not None)
    if reference.task is not None:
        resolution = await _of_task(request, parts, owner, reference)
    else:
        resolution = await _of_system_text(request, parts, owner, reference.edge_model)
    if resolution.recipe is None or request.loragen.mode in _WITH_RECIPE:
        return resolution
    task, conversation = resolution.task, resolution.conversation
    assert task is not None
    parts.measuring.remind(task)
    withheld = parts.standing.withheld(task)
    if withheld is not None:
        return resolution.without_recipe(withheld)
    switch = request.loragen.switch or parts.switch
    if switch == "now" or conversation is None:
        return resolution
    if await parts.conversations.keeps_prompt(conversation, task):
        return resolution.without_recipe("running_conversation")
    return resolution


async def _of_task(
    request: GenerationRequest, parts: Services, owner: str, reference: TaskReference
) -> Resolution:
    assert reference.task is not None
    is_forced = parts.forces_prompt(owner, reference.edge_model)
    is_unwanted = request.loragen.mode in _WITHOUT_RECIPE
    task_id = await find_task_id(parts.name_memory, owner, reference.task)
    resolved = await parts.resolver.resolve(owner, task_id, wait=not (is_forced or is_unwanted))
    task = resolved.task
    if task.edge_model != reference.edge_model:
        raise InvalidRequest(f"task {task_id!r} is of model {task.edge_model!r}", param="model")
    conversation = None
    if isinstance(request, ChatRequest):
        conversation = Conversation.of(owner, (task_id,), request.messages)
    resolution = Resolution(conversation=conversation).using(resolved)
    if is_forced:
        return resolution.without_recipe("operator_forced")
    return resolution.without_recipe("requested") if is_unwanted else resolution


async def _of_system_text(
    request: GenerationRequest, parts: Services, owner: str, model: str
) -> Resolution:
    """Resolve a request without a task: leading system text in its messages is its prompt."""
    if isinstance(request, CompletionRequest) or request.loragen.mode == "base":
        return Resolution()
    prompt, messages = split_prompt(request.messages)
    if not prompt or not messages:
        return Resolution()
    if len(prompt.encode()) > parts.max_prompt_bytes(owner) < parts.settings.max_prompt_bytes:
        raise InvalidRequest("the system text is larger than its tenant may send", param="messages")
    # Tools that a task cannot hold stay beside it, as hybrid residue.
    tools = try_parse_tools(request.tools or ()) or ()
    ids = parts.identity.ids(owner, model, prompt, tools)
    resolution = Resolution(is_written=True, conversation=Conversation.of(owner, ids, messages))
    if parts.forces_prompt(owner, model):
        return resolution.without_recipe("operator_forced")
    if request.loragen.mode == "prompt" or request.system_prompt == "keep":
        return resolution.without_recipe("requested")
    wait = request.system_prompt == "compile" or request.loragen.mode in _WITH_RECIPE
    found = await parts.auto.resolve(owner, model, prompt, tools, wait=wait)
    if isinstance(found, Resolved):
        return resolution.using(found)
    if found == "no_generator":  # auto mode never has a recipe of it: nothing to remember
        resolution = replace(resolution, conversation=None)
    return resolution.without_recipe(found)


def _check_options(request: GenerationRequest, *, has_task: bool) -> None:
    if isinstance(request, CompletionRequest):
        return
    mode, wish = request.loragen.mode, request.system_prompt
    if wish == "compile" and has_task:
        raise InvalidRequest(
            "system text beside a task stays text and is not compiled", param="system_prompt"
        )
    contradicting = {"compile": _WITHOUT_RECIPE, "keep": () if has_task else _WITH_RECIPE}
    if mode in contradicting.get(wish, ()):
        raise InvalidRequest(
            f"mode {mode!r} contradicts system_prompt {wish!r}", param="loragen.mode"
        )
