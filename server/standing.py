"""Standing: whether a task is served by its recipe, by what was measured; and when that changes."""

import logging
from collections.abc import Collection, Mapping

from loragen import metrics
from loragen.gate import Gate
from loragen.task import FallbackReason, Task, TaskRecord

logger = logging.getLogger(__name__)


class Standing:
    """Holds tasks against the gate of their edge models."""

    def __init__(self, bars: Mapping[str, Gate], *, measured: Collection[str]) -> None:
        """Take the bars of edge models that have some, and which models are measured."""
        self._bars = bars
        self._are_measured = measured

    def withheld(self, task: TaskRecord) -> FallbackReason | None:
        """Return why a task's recipe is not served with, None where it is.

        A new recipe of a task whose last one did not pass must be measured before it serves.
        """
        bars = self._bars.get(task.edge_model, Gate())
        reason = task.withheld(bars)
        if reason is None and task.edge_model in self._are_measured:
            return "not_measured" if task.is_on_probation(bars) else None
        return reason

    def is_mendable(self, task: Task) -> bool:
        """Whether a task is not served by its recipe, and is refined by itself.

        One whose recipe does harm is not: its generator misread the prompt.
        """
        does_harm = task.measured is not None and task.measured.does_harm
        return self.withheld(task) == "low_fidelity" and not does_harm

    def note(self, before: Task, after: Task) -> None:
        """Count it where a new measurement began or ended that a task is served by its recipe."""
        measurement = after.measurement
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
