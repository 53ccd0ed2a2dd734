"""Pools as one gateway sees them: what its workers hold, and what all gateways have agreed on.

Invariant: where an upgrade has ever begun, what a task is served with follows from the state in
Redis and from which pools have workers, in every gateway alike.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

from loragen.errors import StoreUnavailable
from loragen.pools import PoolState, PoolStates
from loragen.task import FallbackReason, TaskRecord
from server.crew import Crew

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.5
"""Pause between looks at the state; a switch is everywhere within this, and what one look takes."""

_Task = TypeVar("_Task", bound=TaskRecord)


class Pools:
    """The pools of all edge models."""

    def __init__(
        self,
        crews: Mapping[str, Crew],
        states: PoolStates,
        withheld: Callable[[TaskRecord], FallbackReason | None],
    ) -> None:
        """Take why a task's recipe is `withheld`, if it is."""
        self._crews = crews
        self._states = states
        self._withheld = withheld
        self._known: dict[str, PoolState] = {}

    def state(self, model: str) -> PoolState:
        """Return the state of a model's pools, as of the last look."""
        return self._known.get(model, PoolState())

    def is_managed(self, model: str) -> bool:
        """Whether a pool of the model was ever upgraded; else its workers say what serves."""
        return self.state(model).serving is not None

    def live(self, model: str) -> tuple[str, ...]:
        """Return the pools that this model's workers hold."""
        crew = self._crews.get(model)
        return () if crew is None else crew.pools

    def workers(self, model: str) -> dict[str, int]:
        """Return how many workers hold each pool."""
        crew = self._crews.get(model)
        held = [] if crew is None else [worker.pool_id for worker in crew.workers]
        return dict(sorted(Counter(pool_id for pool_id in held if pool_id is not None).items()))

    def order(self, model: str) -> tuple[str, ...]:
        """Return the pools that a task can be served from, the one that is to serve first.

        Without any worker that is the one to serve, so that a task can be compiled for it.
        """
        serving, live = self.state(model).serving, self.live(model)
        if serving is None or not live:
            return live if serving is None else (serving,)
        return tuple(sorted(live, key=lambda pool_id: pool_id != serving))

    def chosen(self, task: _Task) -> _Task:
        """Return a task on the pool that it is to be served from.

        Where none was ever upgraded, a task without a recipe for any that workers hold stays as it
        is: the pool was replaced, and the task is compiled again once a worker has refused it.
        """
        view = task.best_of(self.order(task.edge_model), self._withheld)
        return view if view.recipe is not None or self.is_managed(task.edge_model) else task

    def placed(self, task: _Task, pool_id: str) -> _Task:
        """Return a task on a pool, with what it has for the pool that serves kept for sure.

        A task keeps the recipes of two pools: a third takes the place of the one that does not
        serve, be it that of an upgrade that was given up.
        """
        serving = self.state(task.edge_model).serving
        return (task if serving in (None, pool_id) else task.on(serving)).on(pool_id)

    def shown(self, task: _Task) -> _Task:
        """Return a task as the API shows it: where no pool was ever upgraded, as it is stored."""
        return self.chosen(task) if self.is_managed(task.edge_model) else task

    def is_current(self, task: TaskRecord) -> bool:
        """Whether a task that was chosen a moment ago would be chosen again."""
        is_managed = self.is_managed(task.edge_model)
        return not is_managed or self.chosen(task).recipe == task.recipe

    async def look(self) -> None:
        """Ask Redis for the states.

        Raises:
            StoreUnavailable: Redis does not answer; what was known stays.
        """
        known = await self._states.read()
        if known != self._known:
            logger.info("pools have changed", extra={"models": sorted(known)})
        self._known = known

    async def follow(self) -> None:
        """Look again and again until cancelled."""
        while True:
            with suppress(StoreUnavailable):  # its metric and logs say so
                await self.look()
            await asyncio.sleep(POLL_SECONDS)
