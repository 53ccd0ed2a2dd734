"""The states of pools keep one contract, with Redis and without."""

from collections.abc import AsyncIterator

import pytest

from loragen.errors import StoreUnavailable
from loragen.pools import RedisPoolStates
from loragen.redis_client import connect
from tests.contract.pool_states_contract import PoolStatesContract
from tests.fakes.memory_pools import MemoryPoolStates
from tests.fakes.valkey import Valkey


class TestMemoryPoolStates(PoolStatesContract):
    """The fake."""

    @pytest.fixture
    def states(self) -> MemoryPoolStates:
        """Nothing known."""
        return MemoryPoolStates()


@pytest.mark.redis
class TestRedisPoolStates(PoolStatesContract):
    """The real ones."""

    @pytest.fixture
    async def states(self, valkey: Valkey, namespace: str) -> AsyncIterator[RedisPoolStates]:
        """Nothing known, in a namespace of their own."""
        client = connect(valkey.url, timeout_seconds=5)
        yield RedisPoolStates(client, namespace=namespace)
        await client.aclose()

    async def test_a_state_that_cannot_be_read_is_no_state(
        self, states: RedisPoolStates, valkey: Valkey, namespace: str
    ) -> None:
        valkey.client.hset(f"{namespace}:pools", "demo", "{}}")
        with pytest.raises(StoreUnavailable):
            await states.read()
