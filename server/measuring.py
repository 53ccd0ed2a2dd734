"""Measuring: every new recipe is measured in the background, and refined if that may help.

Of all gateways one measures a task, under a lease. When it dies its lease ends, and a later request
to the task begins another.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from loragen import metrics
from loragen.background import JOB_ENDS_SECONDS, end
from loragen.errors import (
    GeneratorUnavailable,
    InvalidRequest,
    LoragenError,
    Overloaded,
    TaskNotFound,
)
from loragen.leases import LEASE_SECONDS, hold, keep
from loragen.measurement import Measurement
from loragen.recipe import Recipe
from loragen.task import Task
from loragen.wire import MeasureReply, MeasureRequest, ProbeText
from server.compiler import recipe_lease
from server.generator import Generator
from server.refinement import Refinement
from server.resolve import Resolver
from server.shared import Shared
from server.standing import Standing
from server.turns import Turns

logger = logging.getLogger(__name__)

_Key = tuple[str, str, str]
"""Tenant, task and pool."""

_LEASE_DIGITS: Final = 16
_AT_ONCE: Final = 8
"""Measures of an edge model that one gateway waits for; beyond them tenants take turns, up to a
bound that leaves some unmeasured of a tenant that brings very many."""
_RETRIES: Final = 60
_RETRY_SECONDS: Final = 5.0
"""Pause before a refiner that is away or full is asked again."""
_REMIND_SECONDS: Final = 300.0
"""Between two requests of a task that look whether its measure, or the refine after it, was lost:
it may have failed, and would fail again."""


class Measuring:
    """Measures tasks, each once at a time."""

    def __init__(
        self,
        generators: Mapping[str, Generator],
        shared: Shared,
        resolver: Resolver,
        refinement: Refinement,
        standing: Standing,
        *,
        is_on: bool,
        wait_seconds: float,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Take the generators by edge model; with `is_on` false nothing is ever measured.

        `wait_seconds` is how long those wait who wait for a measure.
        """
        self._generators = generators if is_on else {}
        self._shared = shared
        self._resolver = resolver
        self._refinement = refinement
        self._standing = standing
        self._wait_seconds = wait_seconds
        self._retry_seconds = retry_seconds
        self._turns = {model: Turns(_AT_ONCE) for model in self._generators}
        self._running: dict[_Key, asyncio.Task[None]] = {}
        self._reminded: set[_Key] = set()
        self._reminded_since = -math.inf

    def is_on(self, edge_model: str) -> bool:
        """Whether the recipes of an edge model are measured."""
        return edge_model in self._generators

    def start(self, task: Task) -> None:
        """Measure a task's recipe in the background, unless it is measured or under way."""
        if task.recipe is not None and task.measured is None:
            self._start(task, ())

    def remind(self, task: Task) -> None:
        """Start where whoever began may have died; a request does so now and then."""
        is_measured = task.measured is not None
        is_lost = self._standing.lacks_refine(task) if is_measured else task.recipe is not None
        if not is_lost or not self.is_on(task.edge_model):
            return
        now = time.monotonic()
        if now - self._reminded_since > _REMIND_SECONDS:
            self._reminded.clear()
            self._reminded_since = now
        if (key := _key(task)) not in self._reminded:
            self._reminded.add(key)
            if is_measured:
                self._run(key, lambda: self._refine_lost(task))
            else:
                self.start(task)

    def start_live(self, task: Task, live: Sequence[ProbeText]) -> None:
        """Measure a task's recipe again, on live messages; they are kept in memory alone.

        Nothing happens where a measure of it is under way.
        """
        self._start(task, live)

    def _start(self, task: Task, live: Sequence[ProbeText]) -> None:
        if self.is_on(task.edge_model):
            key = _key(task)
            self._run(key, lambda: self._measure(task.edge_model, *key, live))

    def _run(self, key: _Key, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if key not in self._running:
            running = asyncio.create_task(work())
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key, None))

    async def wait(self, task: Task) -> Task:
        """Return the task as it is once this gateway has measured it, or was not done in time."""
        self.start(task)
        running = self._running.get(_key(task))
        if running is not None:
            await asyncio.wait([running], timeout=self._wait_seconds)
        return await self._shared.store.get(task.tenant, task.id) or task

    async def close(self) -> None:
        """Give up what is being measured."""
        await end(list(self._running.values()), again_seconds=JOB_ENDS_SECONDS)

    async def _measure(
        self,
        edge_model: str,
        tenant: str,
        task_id: str,
        pool_id: str,
        live: Sequence[ProbeText],
    ) -> None:
        lease = f"measure:{tenant}:{task_id}:{pool_id[:_LEASE_DIGITS]}"
        token = secrets.token_hex(16)
        try:
            async with self._turns[edge_model].turn(tenant):
                if not await self._shared.leases.acquire(lease, token, seconds=LEASE_SECONDS):
                    self._reminded.discard((tenant, task_id, pool_id))
                    return  # another gateway measures it, or has died within the last seconds
                async with keep(self._shared.leases, lease, token):
                    measured = await self._measured(tenant, task_id, pool_id, live)
            if measured is not None and self._standing.is_to_be_refined(measured):
                await self._refine(measured, live)
        except LoragenError as error:
            metrics.MEASURES.labels("failed").inc()
            logger.warning("measure lost", extra={"task_id": task_id, "code": error.code})
        except Exception as error:  # the boundary of a background job: it must be heard of
            metrics.MEASURES.labels("failed").inc()
            logger.error("measure failed", exc_info=error, extra={"task_id": task_id})

    async def _measured(
        self, tenant: str, task_id: str, pool_id: str, live: Sequence[ProbeText]
    ) -> Task | None:
        """Measure a task and record it; None where there is nothing to record.

        Its recipe may be another by now, or be gone; and live messages on which the prompt has no
        effect, or which do not fit beside it, tell nothing of a recipe that was measured.
        """
        started = time.monotonic()
        resolved = await self._resolver.on_pool(tenant, task_id, pool_id)
        task, recipe = resolved.task, resolved.recipe
        if recipe is None or (task.measured is not None and not live):
            return None
        measurement = await self._ask(task, recipe, live)
        if live and measurement.fidelity is None:
            metrics.MEASURES.labels("failed").inc()
            return None
        changed = await self._record(task, pool_id, measurement)
        metrics.MEASURE_SECONDS.observe(time.monotonic() - started)
        if changed is not None:
            self._count(changed, measurement)
        return changed

    async def _ask(self, task: Task, recipe: Recipe, live: Sequence[ProbeText]) -> Measurement:
        request = MeasureRequest(
            edge_model=task.edge_model,
            prompt=task.prompt,
            tools=task.tools,
            probes=tuple(live) or task.probes or None,
            recipe=recipe.text,
        )
        try:
            reply = await self._patiently(self._generators[task.edge_model], request)
        except InvalidRequest as error:  # all else says nothing about the task, and may pass
            logger.warning("recipe not measured", extra={"task_id": task.id, "code": error.code})
            return Measurement.of(recipe.id, failure=error.code)
        return Measurement.of(
            recipe.id,
            fidelity=reply.fidelity,
            agreement=reply.agreement,
            probes=reply.probes,
            doubt=reply.doubt,
            does_harm=reply.does_harm,
            by="shadow" if live else "measure",
        )

    async def _patiently(self, generator: Generator, request: MeasureRequest) -> MeasureReply:
        for _ in range(_RETRIES):
            with suppress(GeneratorUnavailable, Overloaded):
                return await generator.measure(request)
            await asyncio.sleep(self._retry_seconds)
        return await generator.measure(request)

    async def _record(self, task: Task, pool_id: str, measurement: Measurement) -> Task | None:
        async with hold(self._shared.leases, recipe_lease(task)):
            found = await self._shared.store.get(task.tenant, task.id)
            if found is None:
                raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
            stored = found.on(pool_id)
            if stored.recipe is None or not measurement.is_of(stored.recipe.id):
                return None
            if stored.measured is not None and measurement.by == "measure":
                return None  # another gateway was first, as where a lease was lost
            changed = stored.model_copy(update=stored.remeasured(measurement))
            if not await self._shared.store.update(changed):
                raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
        await self._resolver.invalidate(changed.tenant, changed.id)
        self._standing.note(stored, changed)
        return changed

    async def _refine_lost(self, task: Task) -> None:
        try:
            await self._refine(task, ())
        except Exception as error:  # the boundary of a background job: it must be heard of
            logger.error("refine failed", exc_info=error, extra={"task_id": task.id})

    async def _refine(self, task: Task, live: Sequence[ProbeText]) -> None:
        serves = self._standing.withheld(task) is None
        if task.policy.refine != "auto" or (serves and self._refinement.is_busy(task.edge_model)):
            return
        pool_id = None if task.recipe is None else task.recipe.pool_id
        with suppress(LoragenError):  # somebody is refining it, or the refiner is away
            await self._refinement.start(task, live or task.probes, pool_id=pool_id)

    def _count(self, task: Task, measurement: Measurement) -> None:
        withheld = self._standing.withheld(task)
        kept = "unsure" if withheld == "model_unsure" else "low"
        outcome = "failed" if measurement.failure else kept if withheld else "passed"
        metrics.MEASURES.labels(outcome).inc()
        if measurement.fidelity is not None:
            metrics.TASK_FIDELITY.observe(measurement.fidelity)
        details: dict[str, Any] = {"task_id": task.id, "outcome": outcome}
        logger.info("recipe measured", extra=details)


def _key(task: Task) -> _Key:
    return task.tenant, task.id, "" if task.recipe is None else task.recipe.pool_id
