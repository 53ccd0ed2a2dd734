"""Limits and ratios of goodput are what they say."""

from collections.abc import Sequence

import pytest

from bench.arrivals import AZURE, Arrival
from bench.first_token import check_cases
from bench.goodput import limits_of, measure, ratio_of
from bench.limits import Limits
from bench.load import Reply
from bench.stand import KV_PROMPTS
from bench.trials import Plan


def reply(first: float, last: float, *, read: int = 9, cached: int = 0) -> Reply:
    return Reply(first, last, output_tokens=5, prompt_tokens=read + cached, cached_tokens=cached)


def test_limits_are_multiples_of_the_medians_of_an_idle_engine() -> None:
    limits = limits_of([reply(1.0, 1.4), reply(2.0, 2.8), reply(9.0, 13.0)])
    assert limits.first_token_seconds == 10.0
    assert limits.token_gap_seconds == pytest.approx(0.4)
    assert limits.meets(reply(10.0, 11.6))
    assert not limits.meets(reply(10.1, 11.6))
    assert not limits.meets(reply(1.0, 2.7))


def test_the_interval_of_one_repeat_is_what_the_searches_leave_open() -> None:
    assert ratio_of([{"prompt": [0.5, 0.6], "recipe": [2.0, 2.4]}]) == {
        "median": 4.0,
        "low": 3.333,
        "high": 4.8,
    }


def test_the_interval_of_repeats_is_theirs() -> None:
    found = [{"prompt": [1.0, 1.1], "recipe": [rate, 9.0]} for rate in (2.0, 3.0, 4.0)]
    ratio = ratio_of(found)
    assert (ratio["low"], ratio["median"], ratio["high"]) == (2.0, 3.0, 4.0)


def test_where_no_rate_passes_the_ratio_favours_prompts() -> None:
    nothing = ratio_of([{"prompt": [None, 0.1], "recipe": [1.0, 1.2]}])
    assert (nothing["low"], nothing["median"]) == (10.0, 10.0)
    assert ratio_of([{"prompt": [1.0, 1.2], "recipe": [None, 0.1]}])["median"] == 0.0


@pytest.mark.parametrize(
    ("warm", "evicted"), [(reply(1, 2, read=900), None), (None, reply(1, 2, cached=900))]
)
def test_a_case_that_is_not_what_its_name_says_is_refused(
    warm: Reply | None, evicted: Reply | None
) -> None:
    right = {
        "warm": reply(1, 2, read=100, cached=900),
        "evicted": reply(1, 2, read=1_000),
    }
    check_cases([right], 1_000)
    wrong = {"warm": warm or right["warm"], "evicted": evicted or right["evicted"]}
    with pytest.raises(RuntimeError, match="prefix cache"):
        check_cases([right, wrong], 1_000)


class OneAtATime:
    """Answers one request after the other, each in the same time, its tokens evenly spread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.trials = 0

    def offer(
        self, requests: Sequence[tuple[Arrival, int]], limits: Limits, *, allowed: int
    ) -> tuple[list[Reply], int]:
        self.trials += 1
        clock, replies = 0.0, []
        for arrival, _ in requests:
            clock = max(clock, arrival.at_seconds)
            first = clock + self._seconds / 2 - arrival.at_seconds
            clock += self._seconds
            replies.append(reply(first, clock - arrival.at_seconds))
        return replies, sum(not limits.meets(each) for each in replies)


@pytest.mark.parametrize(("times", "least", "most"), [(0.8, 0.4, 0.85), (1, 0.99, 1.01), (4, 4, 9)])
def test_a_server_that_is_faster_has_at_least_as_much_more_goodput(
    times: float, least: float, most: float
) -> None:
    plan = Plan(AZURE, requests=100, repeats=3, precision=1.05)
    ways = {"prompt": OneAtATime(1.0), "recipe": OneAtATime(1.0 / times)}
    measured = measure(ways, plan)
    assert measured["limits"] == {"first_token_seconds": 2.5, "token_gap_seconds": 0.25}
    assert least <= measured["goodput_ratio"]["median"] <= most
    for rates in measured["rates"]:
        # Arrivals come in bursts: a queue of one a second is in time well below one a second.
        assert 0.3 < rates["prompt"][0] < rates["prompt"][1] < 1.1
    assert len(measured["trials"]) + 2 * KV_PROMPTS == sum(way.trials for way in ways.values())
