"""Pool control: what an operator sees of pools, and the three things to do with them.

Each of them changes one value in Redis, by compare and set, and so happens at once or not at all.
"""

from collections.abc import Callable, Collection
from typing import Any

from loragen.errors import Conflict, EdgeModelNotFound
from loragen.pools import PoolState
from loragen.upgrades import Progress
from server.pools import Pools
from server.shared import Shared


class PoolControl:
    """The pools of all edge models, for the admin API."""

    def __init__(
        self, pools: Pools, shared: Shared, models: Collection[str], *, ready_share: float
    ) -> None:
        self._pools = pools
        self._shared = shared
        self._models = models
        self._ready_share = ready_share

    async def all(self) -> list[dict[str, Any]]:
        """Return what is known of the pools of every edge model."""
        await self._pools.look()
        return [await self._shown(model) for model in self._models]

    async def show(self, model: str) -> dict[str, Any]:
        """Return what is known of the pools of one edge model.

        Raises:
            EdgeModelNotFound: no such model is configured.
        """
        await self._known(model)
        return await self._shown(model)

    async def upgrade(self, model: str, pool_id: str | None) -> dict[str, Any]:
        """Have tasks compiled for a pool; by default for the one other pool that workers hold.

        Raises:
            EdgeModelNotFound: no such model is configured.
            Conflict: there is no such pool, or it serves already, or another one is coming.
        """
        state, live = await self._known(model), self._pools.live(model)
        others = [each for each in live if each not in (state.serving, pool_id)]
        if pool_id is None:
            if state.serving is None:
                raise Conflict(
                    "give the pool_id that is to come: no pool was upgraded before, so it cannot "
                    "be told from the one that serves",
                    param="pool_id",
                )
            if len(others) != 1:
                raise Conflict(f"workers hold {len(others)} other pools: give the pool_id")
            (pool_id,) = others
        if pool_id not in live:
            raise Conflict("no worker holds this pool: start one first", param="pool_id")
        if state.serving is None and len(others) > 1:
            raise Conflict("workers hold more than two pools: end all but those of two")
        after = state.begun(pool_id, held=others[0] if others else None)
        # What an earlier upgrade to this pool has reached says nothing of the tasks since.
        await self._shared.progress.clear(model)
        return await self._change(model, state, lambda: after)

    async def switch(self, model: str, *, force: bool) -> dict[str, Any]:
        """Serve from the pool that is coming.

        Raises:
            EdgeModelNotFound: no such model is configured.
            Conflict: none is coming; or too few requests are ready, or no worker holds it, and it
                is not forced.
        """
        state = await self._known(model)
        after = state.switched()
        if not force:
            self._require_workers(model, after)
            progress = await self._progress(model, state)
            share = 0.0 if progress is None else progress.ready_share
            if share < self._ready_share:
                raise Conflict(
                    f"{share:.1%} of the requests are ready, {self._ready_share:.1%} must be: wait "
                    "for more tasks, or force it",
                    param="force",
                )
        return await self._change(model, state, lambda: after)

    async def roll_back(self, model: str, *, force: bool) -> dict[str, Any]:
        """Give up the pool that is coming, or serve from the one before.

        Raises:
            EdgeModelNotFound: no such model is configured.
            Conflict: there is neither; or no worker holds the one before, and it is not forced.
        """
        state = await self._known(model)
        after = state.rolled_back()
        if not force:
            self._require_workers(model, after)
        return await self._change(model, state, lambda: after)

    async def _known(self, model: str) -> PoolState:
        if model not in self._models:
            raise EdgeModelNotFound(f"no model {model!r} is configured", param="model")
        await self._pools.look()
        return self._pools.state(model)

    def _require_workers(self, model: str, after: PoolState) -> None:
        if after.serving not in self._pools.live(model):
            raise Conflict("no worker holds that pool: start some, or force it", param="force")

    async def _change(
        self, model: str, before: PoolState, change: Callable[[], PoolState]
    ) -> dict[str, Any]:
        if not await self._shared.pools.replace(model, before, change()):
            raise Conflict("somebody else changed it at the same time: look, and try again")
        await self._pools.look()
        return await self._shown(model)

    async def _progress(self, model: str, state: PoolState) -> Progress | None:
        progress = await self._shared.progress.read(model)
        return progress if progress is not None and progress.pool_id == state.upgrade else None

    async def _shown(self, model: str) -> dict[str, Any]:
        state = self._pools.state(model)
        progress = await self._progress(model, state)
        shown = None
        if progress is not None:
            shown = {**progress.model_dump(), "ready_share": round(progress.ready_share, 4)}
        return {
            "object": "pools",
            "model": model,
            "serving": state.serving,
            "coming": state.coming,
            "previous": state.previous,
            "workers": self._pools.workers(model),
            "progress": shown,
        }
