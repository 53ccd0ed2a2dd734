"""Resolution: what a request is answered with, found before it is planned."""

from dataclasses import dataclass
from typing import Self

from loragen.recipe import Recipe
from loragen.task import FallbackReason, Task
from server.memory import Resolved


@dataclass(frozen=True, slots=True)
class Resolution:
    """A task with its recipe or the reason why there is none to serve with; or no task at all."""

    task: Task | None = None
    recipe: Recipe | None = None
    fallback_reason: FallbackReason | None = None

    @classmethod
    def of(cls, resolved: Resolved) -> Self:
        """Return the resolution that uses what was resolved."""
        if resolved.recipe is not None:
            return cls(resolved.task, resolved.recipe)
        return cls(resolved.task, None, resolved.task.fallback_reason or "compiling")
