"""What gateways rely on in the states of pools. A subclass gives the fixture `states`."""

import asyncio

from loragen.pools import PoolState, PoolStates

A, B = "0a" * 32, "0b" * 32


class PoolStatesContract:
    """The checks."""

    async def test_nothing_is_known_at_first(self, states: PoolStates) -> None:
        assert await states.read() == {}

    async def test_a_state_comes_back_whole_and_models_are_apart(self, states: PoolStates) -> None:
        known = {
            "demo": PoolState(serving=A, coming=B),
            "org/other.model": PoolState(serving=B, previous=A),
        }
        for model, state in known.items():
            assert await states.replace(model, PoolState(), state)
        assert await states.read() == known

    async def test_of_those_who_change_the_same_state_one_does(self, states: PoolStates) -> None:
        before = PoolState()
        for after in (PoolState(serving=A, coming=B), PoolState(serving=B, previous=A)):
            done = await asyncio.gather(*(states.replace("demo", before, after) for _ in range(20)))
            assert sorted(done) == [False] * 19 + [True]
            assert await states.read() == {"demo": after}
            before = after

    async def test_a_state_that_is_another_by_now_stays(self, states: PoolStates) -> None:
        now = PoolState(serving=A)
        await states.replace("demo", PoolState(), now)
        for before in (PoolState(), PoolState(serving=B), PoolState(serving=A, coming=B)):
            assert not await states.replace("demo", before, PoolState(serving=B))
        assert await states.read() == {"demo": now}
