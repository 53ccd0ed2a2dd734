"""Trials: requests offered at rates, under the fixed protocol of `bench.goodput`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from bench.arrivals import AZURE, Arrival, Shape, Trace
from bench.limits import Limits
from bench.load import Reply
from bench.progress import say
from bench.search import Search
from bench.stand import ANSWER_TOKENS, KV_PROMPTS, MESSAGE_TOKENS, PROMPT_TOKENS

WAYS: Final = ("prompt", "recipe")
TENANTS: Final = 256
SHARE_IN_TIME: Final = 0.95
LEAST_TOKENS: Final = 16
"""Of a message and of an answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how exactly to search."""

    trace: Path = AZURE
    requests: int = 200
    """Offered at each rate."""
    repeats: int = 7
    """Searches of both ways, each of other requests."""
    precision: float = 1.1
    """Largest ratio of the two rates that a search ends between."""
    answer_tokens: int = ANSWER_TOKENS
    """The longest answer."""

    def shape(self) -> Shape:
        """Return how long messages and answers are."""
        message = (LEAST_TOKENS, MESSAGE_TOKENS)
        return Shape(PROMPT_TOKENS, message=message, answer=(LEAST_TOKENS, self.answer_tokens))


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one rate."""

    way: str
    seed: int
    rate: float
    requests: int
    missed: int
    """Answers known to be late when the trial ended."""
    has_passed: bool
    answered: int
    """Fewer than requests when it ended early; all figures below are of these."""
    first_token_p50_seconds: float
    first_token_p95_seconds: float
    token_gap_p50_seconds: float
    token_gap_p95_seconds: float
    cached_share: float
    """Tokens from the prefix cache, of all tokens of the answered requests' contexts."""

    def __str__(self) -> str:
        verdict = "in time" if self.has_passed else "late"
        return (
            f"{self.way} {self.rate:.2f}/s {verdict}, {self.missed} of {self.requests} missed; of "
            f"{self.answered} p50 and p95: first token {self.first_token_p50_seconds:.2f} and "
            f"{self.first_token_p95_seconds:.2f} s, a token {1e3 * self.token_gap_p50_seconds:.0f} "
            f"and {1e3 * self.token_gap_p95_seconds:.0f} ms; {100 * self.cached_share:.0f}% cached"
        )


class Served(Protocol):
    """One way of serving all tenants."""

    def offer(
        self, requests: Sequence[tuple[Arrival, int]], limits: Limits, *, allowed: int
    ) -> tuple[list[Reply], int]:
        """Answer requests of tenants as they come.

        Return the replies, and how many requests are late; it may end once that is more than
        `allowed`.
        """


class Trials:
    """The fixed protocol: trials of rates."""

    def __init__(self, ways: Mapping[str, Served], plan: Plan) -> None:
        self._ways = ways
        self._trace = Trace.load(plan.trace)
        self._requests = plan.requests
        self._shape = plan.shape()
        weights = 1 / np.arange(1, TENANTS + 1)
        self._chances = weights / weights.sum()

    def unloaded(self) -> dict[str, list[Reply]]:
        """Ask one at a time for the most popular tenants, the most popular last.

        The KV cache then holds what it would hold after a while.
        """
        replies: dict[str, list[Reply]] = {way: [] for way in WAYS}
        no_limits = Limits(math.inf, math.inf)
        for tenant in reversed(range(KV_PROMPTS)):
            for way in WAYS:
                request = (Arrival(0.0, LEAST_TOKENS, LEAST_TOKENS), tenant)
                (reply,), _ = self._ways[way].offer([request], no_limits, allowed=0)
                replies[way].append(reply)
        return replies

    def trial(self, way: str, rate: float, *, limits: Limits, seed: int) -> Trial:
        """Offer requests at a rate; end early once too many are late."""
        arrivals = self._trace.replay(self._requests, rate, seed=seed, shape=self._shape)
        tenants = np.random.default_rng(seed).choice(TENANTS, len(arrivals), p=self._chances)
        requests = [(arrival, int(each)) for arrival, each in zip(arrivals, tenants, strict=True)]
        allowed = round((1 - SHARE_IN_TIME) * len(arrivals))
        replies, missed = self._ways[way].offer(requests, limits, allowed=allowed)
        return Trial(
            way=way,
            seed=seed,
            rate=rate,
            requests=len(arrivals),
            missed=missed,
            has_passed=missed <= allowed,
            **_figures(replies),
        )

    def search(
        self, guesses: dict[str, float], *, precision: float, limits: Limits, seed: int
    ) -> tuple[dict[str, Search], list[Trial]]:
        """Try rates, the ways in turn, until both searches are done."""
        searches = {way: Search(guesses[way], precision) for way in WAYS}
        trials = []
        while open_ := [way for way in WAYS if not searches[way].is_done]:
            for way in open_:
                rate = searches[way].next_rate
                trial = self.trial(way, rate, limits=limits, seed=seed)
                searches[way].tell(rate, has_passed=trial.has_passed)
                say(f"goodput: {trial}")
                trials.append(trial)
        return searches, trials


def _figures(replies: Sequence[Reply]) -> dict[str, Any]:
    firsts = [reply.first_token_seconds for reply in replies] or [0.0]
    gaps = [reply.token_gap_seconds for reply in replies] or [0.0]
    read = sum(reply.prompt_tokens for reply in replies)
    return {
        "answered": len(replies),
        "first_token_p50_seconds": float(np.quantile(firsts, 0.5)),
        "first_token_p95_seconds": float(np.quantile(firsts, 0.95)),
        "token_gap_p50_seconds": float(np.quantile(gaps, 0.5)),
        "token_gap_p95_seconds": float(np.quantile(gaps, 0.95)),
        "cached_share": sum(reply.cached_tokens for reply in replies) / max(read, 1),
    }
