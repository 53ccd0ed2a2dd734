"""Registration: a prompt becomes a task of its tenant, or is found to be one; and its end."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

from loragen.errors import Conflict, InvalidRequest, PromptTooLong, TaskDamaged, TaskNotFound
from loragen.names import taken
from loragen.task import Task, TaskRecord
from loragen.tools import canonical_tools
from server.prompt_tokens import count_prompt_tokens
from server.requests import TaskFields
from server.services import Services
from server.usage_meter import today

_TRIES: Final = 5
"""A prompt may be registered, and deleted, by others meanwhile."""
_SETTINGS: Final = frozenset({"policy", "min_fidelity", "probes"})


async def register(
    request: TaskFields,
    parts: Services,
    owner: str,
    *,
    name: str | None = None,
    created_at: int | None = None,
) -> tuple[Task, bool]:
    """Return the task of a prompt, and whether it is new; a name given is claimed for it.

    A new task was created now, or at `created_at` (Unix seconds) in another installation.

    Raises:
        InvalidRequest: the prompt is too large.
        Conflict: the prompt is known with other settings, or the name stands for another task.
        LimitExceeded: the tenant may have no more tasks, or compile no more at the moment.
    """
    _check_size(request, parts.max_prompt_bytes(owner))
    ids = parts.identity.ids(owner, request.model, request.system_prompt, request.tools)
    for number in range(_TRIES):
        task_id = await parts.identity.find(owner, ids)
        known = await _known(request, parts, owner, task_id)
        task, is_new = known, known is None or known.is_implicit
        if is_new:
            if name is not None:
                await _require_free(name, parts, owner, task_id)
            new = await _describe(request, parts, owner, task_id)
            if created_at is not None:
                new = new.model_copy(update={"created_at": created_at})
            others = [each for each in ids if each != task_id]
            if known is None and number == 0 and parts.auto.compiles(request.model):
                await parts.gatekeeper.take_compile(parts.tenant(owner))
            task = await _write(new, parts, others=others, forerunner=known)
        if task is None:
            continue  # another was first with this prompt
        if name is not None:
            await parts.names.claim(owner, name, task_id, now=int(time.time()))
            await parts.name_memory.changed(owner, name)
        return task, is_new
    raise Conflict("the task of this prompt is being changed by others: try again")


async def finish(task: Task, parts: Services, *, wait: bool, is_new: bool = False) -> Task:
    """Have a task compiled unless it is, and wait for it on request; measured, if it needs that.

    Raises:
        PromptTooLong: it can neither be compiled nor be read by the edge model. One `is_new` is
            removed; any other stays, for workers may read more again.
    """
    if task.recipe is None and not wait:
        parts.resolver.start(task)
    elif task.recipe is None:
        task = (await parts.resolver.compile(task)).task
        await _refuse_unservable(task, parts, is_new=is_new)
    if task.recipe is not None:
        parts.measuring.start(task)
    if wait and parts.standing.withheld(task) == "not_measured":
        return await parts.measuring.wait(task)
    return task


async def remove(task: Task, parts: Services) -> None:
    """Remove a task with its recipe and whatever names it.

    Raises:
        TaskNotFound: it is gone already.
    """
    # Its record goes when all else is gone, so that what breaks off is found, and ended, by the
    # next try; and all else once more, for it may have been named while its record was there.
    await _forget(task, parts)
    last = await parts.store.get(task.tenant, task.id) or task
    await parts.resolver.delete_recipes(last)
    deleted = await parts.store.delete(task.tenant, task.id)
    await parts.resolver.invalidate(task.tenant, task.id)
    await _forget(task, parts)
    await parts.resolver.delete_recipes(last)
    if deleted is None:
        raise TaskNotFound(f"no task {task.id!r}", param="task_id")
    if deleted.record is not None:  # those of a compile since the last look, too
        await parts.resolver.delete_recipes(deleted.record)


async def remove_unreadable(tenant: str, task_id: str, parts: Services) -> None:
    """Remove a task that Redis does not give whole, with what is known of it.

    A recipe that only a damaged record led to stays until it expires.

    Raises:
        TaskNotFound: it is gone already.
    """
    with suppress(TaskDamaged):  # a reply to another request looks like damage, once
        task = await parts.store.get(tenant, task_id)
        if task is not None:
            return await remove(task, parts)
    record = await _record(tenant, task_id, parts)
    models = parts.dispatcher.edge_models if record is None else (record.edge_model,)
    await _forget_id(tenant, task_id, models, parts)
    if record is not None:
        await parts.resolver.delete_recipes(record)
    deleted = await parts.store.delete(tenant, task_id)
    await parts.resolver.invalidate(tenant, task_id)
    await _forget_id(tenant, task_id, models, parts)
    if deleted is None:
        raise TaskNotFound(f"no task {task_id!r}", param="task_id")
    if deleted.record is not None:
        await parts.resolver.delete_recipes(deleted.record)
    return None


async def _record(tenant: str, task_id: str, parts: Services) -> TaskRecord | None:
    """Return a task's record, which may be whole where its prompt is not."""
    try:
        return (await parts.store.records(tenant, [task_id])).get(task_id)
    except TaskDamaged:
        return None


async def _forget(task: Task, parts: Services) -> None:
    """Remove what names a task."""
    await parts.names.forget_task(task.tenant, task.id)
    for task_id in {task.id, *parts.identity.ids_of(task)}:
        await parts.sightings.forget(task.tenant, task_id)
    await parts.usage.forget_task(task.tenant, task.id, model=task.edge_model, today=today())


async def _forget_id(tenant: str, task_id: str, models: Sequence[str], parts: Services) -> None:
    """Remove what names a task that cannot be read, and is of one of these edge models."""
    await parts.names.forget_task(tenant, task_id)
    await parts.sightings.forget(tenant, task_id)
    for model in models:
        await parts.usage.forget_task(tenant, task_id, model=model, today=today())


async def _require_free(name: str, parts: Services, owner: str, task_id: str) -> None:
    holder = await parts.names.find(owner, name)
    if holder not in (None, task_id):
        raise taken(name, str(holder))


async def _write(
    task: Task, parts: Services, *, others: Sequence[str], forerunner: Task | None
) -> Task | None:
    """Write a new task, in place of its implicit forerunner if it has one; None if another did.

    Raises:
        LimitExceeded: the tenant may have no more tasks.
    """
    most = parts.tenant(task.tenant).limits.tasks
    async with AsyncExitStack() as held:
        if forerunner is not None:  # auto mode was first with this prompt
            # A compile that began with the implicit task would write it back as it was.
            await held.enter_async_context(parts.resolver.held(forerunner))
            stored = await parts.store.get(task.tenant, task.id)
            task = task if stored is None else _take_over(task, stored)
        if not await parts.store.create(task, most=most, others=others):
            return None
    newest = parts.identity.ids_of(task)[0]
    if task.id != newest:  # it was seen before a rotation: it is to be found after it, too
        await parts.store.link(task.tenant, task.id, newest)
    if forerunner is None:  # memory holds what was before a delete, if anything
        parts.resolver.forget(task.tenant, task.id)
    else:
        await parts.resolver.invalidate(task.tenant, task.id)
    return task


def _take_over(task: Task, implicit: Task) -> Task:
    """Return a registered task with what was compiled for its implicit forerunner."""
    task = task.model_copy(update=implicit.outcome())
    if task.probes:  # it was measured on others
        task = task.model_copy(update={"measurement": None})
    return task


def _check_size(request: TaskFields, limit: int) -> None:
    tools = canonical_tools(request.tools).encode()
    if len(request.system_prompt.encode()) + len(tools) > limit:
        what = "system_prompt and tools together are" if tools else "system_prompt is"
        raise InvalidRequest(f"{what} larger than {limit} bytes", param="system_prompt")


async def _known(request: TaskFields, parts: Services, owner: str, task_id: str) -> Task | None:
    """Return the task if this tenant has it.

    Raises:
        Conflict: it has, with other settings than the request gives; tasks do not change.
    """
    task = await parts.store.get(owner, task_id)
    if task is None or task.is_implicit:
        return task
    task = parts.pools.shown(task)
    for field in sorted(_SETTINGS & request.model_fields_set):
        if (getattr(request, field) or ()) != (getattr(task, field) or ()):
            raise Conflict(f"this prompt is task {task_id!r}, with another {field}", param=field)
    return task


async def _describe(request: TaskFields, parts: Services, owner: str, task_id: str) -> Task:
    parts.dispatcher.info(request.model)
    return Task(
        id=task_id,
        tenant=owner,
        edge_model=request.model,
        prompt=request.system_prompt,
        tools=request.tools,
        created_at=int(time.time()),
        prompt_tokens=await count_prompt_tokens(
            parts.dispatcher, request.model, request.system_prompt, request.tools
        ),
        policy=request.policy,
        min_fidelity=request.min_fidelity,
        probes=request.probes or (),
        needs_measure=request.probes is not None and parts.measuring.is_on(request.model),
    )


async def _refuse_unservable(task: Task, parts: Services, *, is_new: bool) -> None:
    limit = parts.dispatcher.info(task.edge_model).max_model_len
    hopeless = task.fallback_reason == "prompt_too_long" or (
        task.fallback_reason == "no_generator" and not parts.refinement.covers(task.edge_model)
    )  # a refiner may read more than the workers do
    if not hopeless or task.prompt_tokens < limit:
        return
    if is_new:
        await remove(task, parts)
    raise PromptTooLong(
        f"prompt and tools have {task.prompt_tokens} tokens; model {task.edge_model!r} reads "
        f"{limit} with the conversation, and no generator compiles it",
        param="system_prompt",
    )
