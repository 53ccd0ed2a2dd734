"""Standing: whether a task is served by its recipe, by what was measured; and when that changes."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from loragen import metrics
from loragen.errors import GeneratorUnavailable, LoragenError, Overloaded
from loragen.gate import Gate
from loragen.measurement import Measurement
from loragen.task import FallbackReason, Task, TaskRecord

logger = logging.getLogger(__name__)

REFINE_PAUSE_SECONDS: Final = 600.0
"""Least pause between refines of a task that live messages ask for."""

_NOT_THE_TASKS: Final = (GeneratorUnavailable.code, Overloaded.code, LoragenError.code)
"""Failures of a refine that say nothing about the task: the refiner was away, full, or failed."""


class Standing:
    """Holds tasks against the gate of their edge models."""

    def __init__(
        self,
        bars: Mapping[str, Gate],
        *,
        measured: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the bars of edge models, and which models are measured."""
        self._bars = bars
        self._are_measured = measured
        self._clock = clock

    def withheld(self, task: TaskRecord) -> FallbackReason | None:
        """Return why a task's recipe is not served with, None where it is.

        A new recipe of a task whose last one did not pass must be measured before it serves.
        """
        bars = self._bars.get(task.edge_model, Gate())
        reason = task.withheld(bars)
        if task.edge_model not in self._are_measured:  # nobody would ever measure it
            return None if task.measured is None else reason
        return "not_measured" if reason is None and task.is_on_probation(bars) else reason

    def is_to_be_refined(self, task: Task) -> bool:
        """Whether a task that was just measured is refined by itself.

        One that live messages measure again is not while it passes, nor soon after a refine: that
        brought what it could, and the next messages measure it within seconds.
        """
        found = task.measured
        if found is None or found.failure is not None:
            return False
        bars = self._bars_of(task)
        if found.by == "shadow":
            if self._is_just_refined(task):
                return False
            bars = replace(bars, refine_below_agreement=0.0)
        is_made_up = found.by == "measure" and not task.probes
        return bars.is_to_be_refined(
            found.fidelity, found.doubt, found.agreement, is_made_up=is_made_up
        )

    def lacks_refine(self, task: Task) -> bool:
        """Whether the refine that a task's measure asked for never was, or failed for others' sake.

        Its gateway has died, or what could be left was left. One that took too long is not tried
        again: it would as well.
        """
        found, last = task.measured, task.refine
        if found is None or found.by != "measure" or task.policy.refine != "auto":
            return False
        was_away = last is None or last.reason in _NOT_THE_TASKS
        is_older = last is not None and (last.at or 0) < (found.at or 0)
        return (was_away or is_older) and self.is_to_be_refined(task)

    def passes(self, task: Task, measurement: Measurement) -> bool:
        """Whether a recipe of a task with this measurement would serve it."""
        return measurement.refusal(self._bars_of(task)) is None

    def _is_just_refined(self, task: Task) -> bool:
        at = None if task.refine is None else task.refine.at
        return at is not None and self._clock() < at + REFINE_PAUSE_SECONDS

    def _bars_of(self, task: Task) -> Gate:
        bars = self._bars.get(task.edge_model, Gate())
        return replace(bars, min_fidelity=task.min_fidelity)

    def note(self, before: Task, after: Task) -> None:
        """Count what a new measurement found: harm; that the recipe begins or ends to serve."""
        measurement = after.measurement
        if measurement is not None and measurement.does_harm and measurement != before.measurement:
            metrics.NEGATIVE_TRANSFER.inc()
            logger.warning("recipe does harm", extra={"task_id": after.id})
        was, is_served = self._is_served(before), self._is_served(after)
        if measurement is None or was == is_served:
            return
        if is_served:
            metrics.PROMOTIONS.labels(measurement.by).inc()
        else:
            cause = "drift" if measurement.by == "shadow" else "measure"
            metrics.DEMOTIONS.labels("harm" if measurement.does_harm else cause).inc()
        logger.info("task changed its mode", extra={"task_id": after.id, "is_served": is_served})

    def _is_served(self, task: Task) -> bool:
        return task.recipe is not None and self.withheld(task) is None
