"""The state of a pool upgrade: whatever is asked of it, in whatever order, somebody serves."""

from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loragen.errors import Conflict
from loragen.pools import PoolState

A, B, C = (letter * 64 for letter in "abc")
POOLS = st.sampled_from((A, B, C))


class Upgrades(RuleBasedStateMachine):
    """An operator who does anything at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.state = PoolState()
        self.served: list[str] = []

    @rule(pool_id=POOLS, held=st.none() | POOLS)
    def begin(self, pool_id: str, held: str | None) -> None:
        before = self.state
        with suppress(Conflict):
            self.state = before.begun(pool_id, held=held)
            assert self.state.serving == (before.serving or held)
            assert (self.state.coming, self.state.previous) == (pool_id, None)
            assert before.coming in (None, pool_id)

    @rule()
    def switch(self) -> None:
        before = self.state
        if before.coming is None:
            with pytest.raises(Conflict):
                before.switched()
            return
        self.state = before.switched()
        assert (self.state.serving, self.state.previous) == (before.coming, before.serving)

    @rule()
    def roll_back(self) -> None:
        before = self.state
        if before.coming is None and before.previous is None:
            with pytest.raises(Conflict):
                before.rolled_back()
            return
        self.state = before.rolled_back()
        expected = before.serving if before.coming else before.previous
        assert self.state.serving == expected

    @precondition(lambda self: self.state.coming is not None)
    @rule()
    def switch_and_roll_back_at_once(self) -> None:
        before = self.state
        after = before.switched().rolled_back()
        assert after == before.model_copy(update={"coming": None})
        assert after.begun(str(before.coming), held=None) == before.model_copy(
            update={"previous": None}
        )

    @invariant()
    def at_most_two_pools_are_in_it_and_they_differ(self) -> None:
        state = self.state
        pools = [each for each in (state.serving, state.coming, state.previous) if each]
        assert len(pools) == len(set(pools)) <= 2

    @invariant()
    def once_something_serves_something_always_does(self) -> None:
        if self.served:
            assert self.state.serving is not None
        if self.state.serving is not None:
            self.served.append(self.state.serving)

    @invariant()
    def tasks_are_compiled_for_what_comes_or_has_just_come(self) -> None:
        state = self.state
        assert state.upgrade == (state.coming or (state.serving if state.previous else None))

    @invariant()
    def it_is_read_as_it_was_written(self) -> None:
        text = self.state.model_dump_json(exclude_none=True)
        assert PoolState.model_validate_json(text) == self.state


TestUpgrades = Upgrades.TestCase
