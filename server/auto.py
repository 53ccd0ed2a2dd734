"""Auto mode: system text that comes again becomes a task by itself, compiled in the background.

    known?  ->  seen before?  ->  long enough?  ->  budget left?  ->  implicit task, compile

Each step costs more than the one before, and a prompt that comes once, such as one that holds the
date, costs a counter in Redis that ends by itself. An implicit task expires without use and is not
listed; it has the id that `POST /v1/tasks` gives the same prompt.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection

from config.settings import AutoSettings
from loragen.errors import LimitExceeded, LoragenError, StoreUnavailable, TaskNotFound
from loragen.task import FallbackReason, Task
from loragen.tools import Tools, canonical_tools
from server.dispatch import Dispatcher
from server.identity import Identity
from server.memory import Resolved
from server.prompt_tokens import count_prompt_tokens
from server.resolve import Resolver
from server.shared import Shared

logger = logging.getLogger(__name__)


class Auto:
    """Finds or makes the task of a prompt that came as system text."""

    def __init__(
        self,
        shared: Shared,
        resolver: Resolver,
        dispatcher: Dispatcher,
        identity: Identity,
        *,
        compiled: Collection[str],
        measured: Collection[str],
        max_prompt_bytes: int,
        settings: AutoSettings,
        take_compile: Callable[[str], Awaitable[None]],
    ) -> None:
        """Take the edge models that have a generator as `compiled`.

        Of those also in `measured`, recipes that nobody asked for are measured before their use.
        `take_compile` counts a compile for a tenant, and raises LimitExceeded if it has none left.
        """
        self._shared = shared
        self._resolver = resolver
        self._dispatcher = dispatcher
        self._identity = identity
        self._compiled = compiled
        self._measured = measured
        self._max_bytes = max_prompt_bytes
        self._settings = settings
        self._take_compile = take_compile

    def compiles(self, model: str) -> bool:
        """Whether an edge model has a generator."""
        return model in self._compiled

    async def resolve(
        self, tenant: str, model: str, prompt: str, tools: Tools = (), *, wait: bool
    ) -> Resolved | FallbackReason:
        """Return the task of a prompt and the tools beside it, or why it has none.

        With `wait` the task is made at once and its compile awaited; without, nothing is.
        """
        if model not in self._compiled:
            return "no_generator"
        size = len(prompt.encode()) + len(canonical_tools(tools).encode())
        if size > self._max_bytes:
            return "prompt_too_long"
        if not wait and size < self._settings.min_prompt_tokens:  # a token is a byte or more
            return "prompt_too_short"
        try:
            try:
                return await self._known(tenant, model, prompt, tools, wait=wait)
            except TaskNotFound:
                if wait:
                    return await self._compile(tenant, model, prompt, tools)
                return await self._see(tenant, model, prompt, tools)
        except StoreUnavailable:
            return "store_unavailable"

    async def _known(
        self, tenant: str, model: str, prompt: str, tools: Tools, *, wait: bool
    ) -> Resolved:
        """Return the task of a prompt.

        Raises:
            TaskNotFound: there is none.
        """
        ids = self._identity.ids(tenant, model, prompt, tools)
        try:
            return await self._resolver.resolve(tenant, ids[0], wait=wait)
        except TaskNotFound:
            known = await self._identity.find(tenant, ids)
            if known == ids[0]:
                raise
            return await self._resolver.resolve(tenant, known, wait=wait)

    async def _compile(self, tenant: str, model: str, prompt: str, tools: Tools) -> Resolved:
        tokens = await count_prompt_tokens(self._dispatcher, model, prompt, tools)
        await self._take_compile(tenant)
        task = await self._create(tenant, model, prompt, tools, tokens=tokens)
        return await self._resolver.compile(task)

    async def _see(
        self, tenant: str, model: str, prompt: str, tools: Tools
    ) -> Resolved | FallbackReason:
        task_id = self._identity.ids(tenant, model, prompt, tools)[0]
        sighting = await self._shared.sightings.sight(tenant, task_id)
        if sighting.count == 1:
            return "first_sighting"
        tokens = sighting.prompt_tokens
        if tokens is None:
            try:
                tokens = await count_prompt_tokens(self._dispatcher, model, prompt, tools)
            except LoragenError as error:  # the request itself may yet be answered
                logger.warning("prompt not counted", extra={"code": error.code})
                return "compile_failed"
            await self._shared.sightings.measure(tenant, task_id, tokens)
        if tokens < self._settings.min_prompt_tokens:
            return "prompt_too_short"
        if not await self._shared.sightings.spend(tenant, task_id):
            return "budget_spent"
        try:
            await self._take_compile(tenant)
        except LimitExceeded:
            return "budget_spent"
        task = await self._create(
            tenant, model, prompt, tools, tokens=tokens, needs_measure=model in self._measured
        )
        self._resolver.start(task)
        return Resolved(task, None)

    async def _create(
        self,
        tenant: str,
        model: str,
        prompt: str,
        tools: Tools,
        *,
        tokens: int,
        needs_measure: bool = False,
    ) -> Task:
        """Return the implicit task, written by this request or, a moment ago, by another."""
        ids = self._identity.ids(tenant, model, prompt, tools)
        task = Task(
            id=ids[0],
            tenant=tenant,
            edge_model=model,
            prompt=prompt,
            tools=tools,
            is_implicit=True,
            created_at=int(time.time()),
            prompt_tokens=tokens,
            needs_measure=needs_measure,
        )
        if await self._shared.store.create(task, others=ids[1:]):
            self._resolver.forget(tenant, task.id)  # what was before a delete, if anything
            return task
        known = await self._identity.find(tenant, ids)
        return task if known == task.id else await self._shared.store.get(tenant, known) or task
