"""Pools: which pool serves an edge model, and how that changes without a pause.

    nothing known  ->  serving A, B coming  ->  serving B, A before  ->  serving B, C coming ...
                            begin                   switch                   begin
                       <- rollback: B is given up   <- rollback: A serves again

    {ns}:pools      hash    edge model -> JSON of its state

One value for all gateways: whoever reads it after a switch serves by the new pool, and there is no
moment between. Nothing is known where no pool was ever upgraded; then workers say what they hold.
"""

from typing import Final, Protocol, Self

import redis.asyncio as redis
from pydantic import BaseModel, ConfigDict, ValidationError

from loragen.errors import Conflict, StoreUnavailable
from loragen.redis_client import as_bytes, mapped
from loragen.wire import Digest

_REPLACE: Final = """
local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class PoolState(BaseModel):
    """The pools of one edge model, by id; at most two, as tasks have recipes of two."""

    model_config = ConfigDict(frozen=True)

    serving: Digest | None = None
    """Whose recipes tasks are served with; None where no pool was ever upgraded."""
    coming: Digest | None = None
    """For which tasks are compiled, so that it can serve."""
    previous: Digest | None = None
    """Which served before, and whose recipes are there still."""

    @property
    def upgrade(self) -> str | None:
        """The pool that tasks are compiled for in the background."""
        return self.coming or (None if self.previous is None else self.serving)

    def begun(self, pool_id: str, *, held: str | None) -> Self:
        """Return the state in which a pool is coming; the one before can no longer come back.

        `held` serves where nothing is known yet.

        Raises:
            Conflict: it serves already, another one is coming, or nothing serves.
        """
        serving = self.serving or held
        if serving is None:
            raise Conflict("no worker holds a pool that could serve meanwhile")
        if pool_id == serving:
            raise Conflict("this pool serves already", param="pool_id")
        if self.coming not in (None, pool_id):
            raise Conflict("another pool is coming: switch to it, or roll back", param="pool_id")
        return self.model_copy(update={"serving": serving, "coming": pool_id, "previous": None})

    def switched(self) -> Self:
        """Return the state in which the coming pool serves.

        Raises:
            Conflict: none is coming.
        """
        if self.coming is None:
            raise Conflict("no pool is coming: begin an upgrade first")
        after = {"serving": self.coming, "coming": None, "previous": self.serving}
        return self.model_copy(update=after)

    def rolled_back(self) -> Self:
        """Return the state without the pool that is coming, or with the one before serving again.

        Raises:
            Conflict: there is neither.
        """
        if self.coming is not None:
            return self.model_copy(update={"coming": None})
        if self.previous is None:
            raise Conflict("there is no pool to roll back to")
        return self.model_copy(update={"serving": self.previous, "previous": None})


class PoolStates(Protocol):
    """Where the states are kept. Every method raises StoreUnavailable."""

    async def read(self) -> dict[str, PoolState]:
        """Return the state of every edge model of which one is known."""

    async def replace(self, model: str, before: PoolState, after: PoolState) -> bool:
        """Change a state unless it is another than `before` by now; False if it is."""


class RedisPoolStates:
    """States in Redis 7 or Valkey."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis = client
        self._key = f"{namespace}:pools"
        self._replace = client.register_script(_REPLACE)

    async def read(self) -> dict[str, PoolState]:
        """Return the state of every edge model of which one is known."""
        async with mapped():
            rows = await self._redis.hgetall(self._key)
        try:
            return {
                as_bytes(model).decode(): PoolState.model_validate_json(as_bytes(text))
                for model, text in rows.items()
            }
        except ValidationError as error:
            raise StoreUnavailable("the state of a pool cannot be read") from error

    async def replace(self, model: str, before: PoolState, after: PoolState) -> bool:
        """Change a state unless it is another than `before` by now; False if it is."""
        async with mapped():
            replaced = await self._replace(
                keys=[self._key], args=[model, _text(before), _text(after)]
            )
        return bool(replaced)


def _text(state: PoolState) -> str:
    return "" if state == PoolState() else state.model_dump_json(exclude_none=True)
