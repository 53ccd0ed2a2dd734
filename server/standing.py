"""Standing: whether a task is served by its recipe, by what was measured; and when that changes."""

import logging
from collections.abc import Collection, Mapping

from loragen import metrics
from loragen.task import FallbackReason, Task, TaskRecord

logger = logging.getLogger(__name__)


class Standing:
    """Holds tasks against the gate of their edge models."""

    def __init__(self, max_doubt: Mapping[str, float], *, measured: Collection[str]) -> None:
        """Take `max_doubt` by edge model, of those that have one, and which models are measured."""
        self._max_doubt = max_doubt
        self._are_measured = measured

    def withheld(self, task: TaskRecord) -> FallbackReason | None:
        """Return why a task's recipe is not served with, None where it is.

        A new recipe of a task whose last one did not pass must be measured before it serves.
        """
        max_doubt = self._max_doubt.get(task.edge_model)
        reason = task.withheld(max_doubt)
        if reason is None and task.edge_model in self._are_measured:
            return "not_measured" if task.is_on_probation(max_doubt) else None
        return reason

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
