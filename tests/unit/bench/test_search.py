"""The search finds the highest rate that passes, whatever it is."""

from hypothesis import given
from hypothesis import strategies as st

from bench.search import Search


def tried(search: Search, limit: float) -> int:
    """Search with a limit that is known; return how many rates it took."""
    for steps in range(64):
        if search.is_done:
            return steps
        search.tell(search.next_rate, has_passed=search.next_rate <= limit)
    raise AssertionError("it does not end")


@given(limit=st.floats(0.1, 1_000), guess=st.floats(0.2, 100), precision=st.floats(1.05, 2))
def test_the_limit_lies_between_what_passed_and_what_failed(
    limit: float, guess: float, precision: float
) -> None:
    search = Search(guess, precision)
    tried(search, limit)
    assert search.failed is not None
    assert limit < search.failed
    if search.passed is None:
        assert limit < guess / 16
    else:
        assert search.passed <= limit
        assert search.failed <= precision * search.passed


def test_it_gives_up_where_nothing_passes() -> None:
    search = Search(1.0, 1.1)
    assert tried(search, 0.0) == 6
    assert search.passed is None


def test_a_guess_that_is_right_takes_few_rates() -> None:
    assert tried(Search(1.0, 1.2), 1.1) == 4
