"""Measuring: every new recipe is measured in the background; what is worth too little is refined.

Of all gateways one measures a task, under a lease. When it dies its lease ends, and the next
request to a task that waits for its measure begins another.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from loragen import metrics
from loragen.errors import (
    DeadlineExceeded,
    EdgeModelNotFound,
    GeneratorUnavailable,
    LoragenError,
    NotFound,
    Overloaded,
    RecipeMismatch,
    TaskNotFound,
)
from loragen.leases import LEASE_SECONDS, hold, keep
from loragen.recipe import Recipe
from loragen.task import FallbackReason, Measurement, Task, TaskRecord
from loragen.wire import MeasureReply, MeasureRequest
from server.compiler import recipe_lease
from server.generator import Generator
from server.refinement import Refinement
from server.resolve import Resolver
from server.shared import Shared

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Measures that one gateway waits for; others wait here and not in the refiner's queue."""
_WAITING: Final = 10_000
"""Measures that wait at most; beyond them an import of very many tasks leaves some unmeasured."""
_NOT_THE_TASKS: Final = (
    *(GeneratorUnavailable, Overloaded, DeadlineExceeded),
    *(EdgeModelNotFound, NotFound, RecipeMismatch),
)
"""Failures that say nothing about a task: the refiner is away, slow, elsewhere, of another pool."""
_RETRIES: Final = 60
_RETRY_SECONDS: Final = 5.0
"""Pause before a refiner that is away or full is asked again."""


class Measuring:
    """Measures tasks, each once at a time."""

    def __init__(
        self,
        generators: Mapping[str, Generator],
        shared: Shared,
        resolver: Resolver,
        refinement: Refinement,
        *,
        is_on: bool,
        max_doubt: Mapping[str, float],
        wait_seconds: float,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Take the generators by edge model; with `is_on` false nothing is ever measured.

        `max_doubt` is the gate's of the edge models that have one. `wait_seconds` is how long those
        wait who wait for a measure.
        """
        self._generators = generators if is_on else {}
        self._shared = shared
        self._resolver = resolver
        self._refinement = refinement
        self._max_doubt = max_doubt
        self._wait_seconds = wait_seconds
        self._retry_seconds = retry_seconds
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}

    def is_on(self, edge_model: str) -> bool:
        """Whether the recipes of an edge model are measured."""
        return edge_model in self._generators

    def withheld(self, task: TaskRecord) -> FallbackReason | None:
        """Return why a task's recipe is not served with, None where it is."""
        return task.withheld(self._max_doubt.get(task.edge_model))

    def start(self, task: Task) -> None:
        """Measure a task's recipe in the background, unless it is measured or under way."""
        key = (task.tenant, task.id)
        is_known = task.recipe is None or task.measured is not None
        if is_known or key in self._running or not self.is_on(task.edge_model):
            return
        if len(self._running) >= _WAITING:
            metrics.MEASURES.labels("failed").inc()
            return
        running = asyncio.create_task(self._measure(*key))
        self._running[key] = running
        running.add_done_callback(lambda _: self._running.pop(key, None))

    async def wait(self, task: Task) -> Task:
        """Return the task as it is once this gateway has measured it, or was not done in time."""
        self.start(task)
        running = self._running.get((task.tenant, task.id))
        if running is not None:
            await asyncio.wait([running], timeout=self._wait_seconds)
        return await self._shared.store.get(task.tenant, task.id) or task

    async def close(self) -> None:
        """Give up what is being measured."""
        running = list(self._running.values())
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _measure(self, tenant: str, task_id: str) -> None:
        lease, token = f"measure:{tenant}:{task_id}", secrets.token_hex(16)
        try:
            async with self._room:
                if not await self._shared.leases.acquire(lease, token, seconds=LEASE_SECONDS):
                    return  # another gateway measures it
                async with keep(self._shared.leases, lease, token):
                    measured = await self._measured(tenant, task_id)
            if measured is not None and self.withheld(measured) == "low_fidelity":
                await self._refine(measured)
        except LoragenError as error:
            metrics.MEASURES.labels("failed").inc()
            logger.warning("measure lost", extra={"task_id": task_id, "code": error.code})
        except Exception as error:  # the boundary of a background job: it must be heard of
            metrics.MEASURES.labels("failed").inc()
            logger.error("measure failed", exc_info=error, extra={"task_id": task_id})

    async def _measured(self, tenant: str, task_id: str) -> Task | None:
        """Measure a task and record it; None where its recipe is another by now, or is gone."""
        started = time.monotonic()
        resolved = await self._resolver.resolve(tenant, task_id)
        task, recipe = resolved.task, resolved.recipe
        if recipe is None or task.measured is not None:
            return None
        measurement = await self._ask(task, recipe)
        changed = await self._record(task, measurement)
        metrics.MEASURE_SECONDS.observe(time.monotonic() - started)
        if changed is not None:
            _count(changed, measurement, self.withheld(changed))
        return changed

    async def _ask(self, task: Task, recipe: Recipe) -> Measurement:
        request = MeasureRequest(
            edge_model=task.edge_model,
            prompt=task.prompt,
            tools=task.tools,
            probes=task.probes or None,
            recipe=recipe.text,
        )
        try:
            reply = await self._patiently(self._generators[task.edge_model], request)
        except _NOT_THE_TASKS:
            raise
        except LoragenError as error:
            logger.warning("recipe not measured", extra={"task_id": task.id, "code": error.code})
            return Measurement.of(recipe.id, failure=error.code)
        if reply.does_harm:
            metrics.NEGATIVE_TRANSFER.inc()
            logger.warning("recipe does harm", extra={"task_id": task.id})
        return Measurement.of(
            recipe.id,
            fidelity=reply.fidelity,
            agreement=reply.agreement,
            probes=reply.probes,
            doubt=reply.doubt,
        )

    async def _patiently(self, generator: Generator, request: MeasureRequest) -> MeasureReply:
        for _ in range(_RETRIES):
            with suppress(GeneratorUnavailable, Overloaded):
                return await generator.measure(request)
            await asyncio.sleep(self._retry_seconds)
        return await generator.measure(request)

    async def _record(self, task: Task, measurement: Measurement) -> Task | None:
        async with hold(self._shared.leases, recipe_lease(task)):
            stored = await self._shared.store.get(task.tenant, task.id)
            if stored is None:
                raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
            if stored.recipe is None or not measurement.is_of(stored.recipe.id):
                return None
            changed = stored.model_copy(update={"measurement": measurement})
            if not await self._shared.store.update(changed):
                raise TaskNotFound(f"task {task.id!r} was deleted", param="task_id")
        await self._resolver.invalidate(changed)
        return changed

    async def _refine(self, task: Task) -> None:
        if task.policy.refine != "auto":
            return
        with suppress(LoragenError):  # somebody is refining it, or the refiner is away
            await self._refinement.start(task, task.probes)


def _count(task: Task, measurement: Measurement, withheld: FallbackReason | None) -> None:
    kept = "unsure" if withheld == "model_unsure" else "low"
    outcome = "failed" if measurement.failure else kept if withheld else "passed"
    metrics.MEASURES.labels(outcome).inc()
    if measurement.fidelity is not None:
        metrics.TASK_FIDELITY.observe(measurement.fidelity)
    details: dict[str, Any] = {"task_id": task.id, "outcome": outcome}
    logger.info("recipe measured", extra=details)
