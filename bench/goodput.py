"""`python -m bench.goodput`: the highest rate at which 95 % of requests are answered in time.

A fixed protocol: 256 tenants with a system prompt of 1,000 tokens each, drawn by Zipf's law with
exponent 1, and KV memory for 20 of them. Requests come when a trace says, whether or not earlier
ones are answered. Two ways, the same requests:

prompt  the prompt is in context, the engine is bare and its prefix cache on
recipe  the engine has the pool, requests have recipes

In time: first token within 5 times, and tokens on average within 2 times, of what an idle engine
takes for the way *prompt* with a prompt that is not cached. The limits are the same for both ways,
in seconds. Rates are found by bisection; both ways take turns, so that drift meets both.
"""

import asyncio
import json
import random
import statistics
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import numpy as np
import typer

from bench.arrivals import AZURE, Shape, Trace
from bench.load import Call, Reply, ask
from bench.open_loop import Limits, OpenLoop
from bench.provenance import provenance
from bench.search import Search
from bench.serving import interval, say
from bench.stand import (
    ANSWER_TOKENS,
    BATCHED_TOKENS,
    KV_PROMPTS,
    MESSAGE_TOKENS,
    MODEL,
    PROMPT_TOKENS,
    Stand,
    stand,
)

WAYS: Final = ("prompt", "recipe")
TENANTS: Final = 256
SHARE_IN_TIME: Final = 0.95
FIRST_TOKEN_FACTOR: Final = 5
TOKEN_GAP_FACTOR: Final = 2
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


class Protocol:
    """The fixed protocol against running workers."""

    def __init__(self, at: Stand, plan: Plan) -> None:
        self._at = at
        self._trace = Trace.load(plan.trace)
        self._requests = plan.requests
        self._shape = plan.shape()
        self._prompts = [at.texts(tenant, tokens=PROMPT_TOKENS) for tenant in range(TENANTS)]
        self._recipes = [at.model.recipe(tenant) for tenant in range(TENANTS)]
        weights = 1 / np.arange(1, TENANTS + 1)
        self._chances = weights / weights.sum()
        self._messages = random.Random(0)

    async def unloaded(self, client: httpx.AsyncClient) -> dict[str, list[Reply]]:
        """Ask one at a time for the most popular tenants, the most popular last.

        The KV cache then holds what it would hold after a while.
        """
        replies: dict[str, list[Reply]] = {way: [] for way in WAYS}
        for tenant in reversed(range(KV_PROMPTS)):
            message = self._message(LEAST_TOKENS)
            for way in WAYS:
                reply = await ask(
                    client, self._call(way, tenant), question=message, max_tokens=LEAST_TOKENS
                )
                replies[way].append(reply)
        return replies

    async def trial(
        self, client: httpx.AsyncClient, way: str, rate: float, *, limits: Limits, seed: int
    ) -> Trial:
        """Offer requests at a rate; end early once too many are late."""
        arrivals = self._trace.replay(self._requests, rate, seed=seed, shape=self._shape)
        tenants = np.random.default_rng(seed).choice(TENANTS, len(arrivals), p=self._chances)
        allowed = round((1 - SHARE_IN_TIME) * len(arrivals))
        loop = OpenLoop(client, limits, allowed=allowed)
        requests = [
            (arrival, self._call(way, int(tenant)), self._message(arrival.message_tokens))
            for arrival, tenant in zip(arrivals, tenants, strict=True)
        ]
        # What an earlier trial broke off may still be in the engine's step.
        await ask(
            client, Call(requests[0][1].url), question=self._message(LEAST_TOKENS), max_tokens=1
        )
        missed = await loop.offer(requests)
        return Trial(
            way=way,
            seed=seed,
            rate=rate,
            requests=len(arrivals),
            missed=missed,
            has_passed=missed <= allowed,
            **_figures(loop.replies),
        )

    def _call(self, way: str, tenant: int) -> Call:
        if way == "prompt":
            return Call(self._at.bare_url, system_prompt=self._prompts[tenant])
        return Call(self._at.gate_url, recipe=self._recipes[tenant])

    def _message(self, tokens: int) -> str:
        return self._at.texts(self._messages.getrandbits(32), tokens=tokens)


async def measure(at: Stand, plan: Plan) -> dict[str, Any]:
    """Return limits, every trial, and the goodput of both ways by repeat."""
    protocol = Protocol(at, plan)
    async with at.client() as client:
        unloaded = await protocol.unloaded(client)
        limits = limits_of(unloaded["prompt"])
        say(f"goodput: limits {limits}")
        guesses = {
            way: 1 / statistics.median(reply.last_token_seconds for reply in replies)
            for way, replies in unloaded.items()
        }
        found: list[dict[str, Any]] = []
        trials: list[Trial] = []
        for seed in range(plan.repeats):
            searches = {way: Search(guesses[way], plan.precision) for way in WAYS}
            tried = _trials(protocol, client, searches, limits=limits, seed=seed)
            trials += [trial async for trial in tried]
            found.append({way: [search.passed, search.failed] for way, search in searches.items()})
            guesses = {way: search.passed or guesses[way] for way, search in searches.items()}
    return {
        "protocol": {**protocol_figures(), **asdict(plan), "trace": plan.trace.name},
        "unloaded": {way: _unloaded_figures(replies) for way, replies in unloaded.items()},
        "limits": asdict(limits),
        "rates": found,
        "goodput_ratio": ratio_of(found),
        "trials": [asdict(trial) for trial in trials],
    }


async def _trials(
    protocol: Protocol,
    client: httpx.AsyncClient,
    searches: dict[str, Search],
    *,
    limits: Limits,
    seed: int,
) -> AsyncIterator[Trial]:
    """Try rates, the ways in turn, until both searches are done."""
    while open_ := [way for way in WAYS if not searches[way].is_done]:
        for way in open_:
            rate = searches[way].next_rate
            trial = await protocol.trial(client, way, rate, limits=limits, seed=seed)
            searches[way].tell(rate, has_passed=trial.has_passed)
            say(f"goodput: {trial}")
            yield trial


def limits_of(unloaded: Sequence[Reply]) -> Limits:
    """Return the limits from what an idle engine takes."""
    return Limits(
        FIRST_TOKEN_FACTOR * statistics.median(reply.first_token_seconds for reply in unloaded),
        TOKEN_GAP_FACTOR * statistics.median(reply.token_gap_seconds for reply in unloaded),
    )


def ratio_of(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how many times the goodput of prompts that of recipes is, and its interval.

    Of one repeat the interval is what the two searches leave open, of more a bootstrap's. Where no
    rate passed for prompts, the lowest that failed stands for their goodput.
    """
    ratios = [
        (rates["recipe"][0] or 0.0) / (rates["prompt"][0] or rates["prompt"][1]) for rates in found
    ]
    if len(ratios) > 1:
        return interval(ratios)
    (prompt, recipe) = (found[0][way] for way in WAYS)
    return {
        "median": round(ratios[0], 3),
        "low": round((recipe[0] or 0.0) / prompt[1], 3),
        "high": round(recipe[1] / (prompt[0] or prompt[1]), 3),
    }


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


def _unloaded_figures(replies: Sequence[Reply]) -> dict[str, float]:
    return {
        "first_token_seconds": statistics.median(reply.first_token_seconds for reply in replies),
        "token_gap_seconds": statistics.median(reply.token_gap_seconds for reply in replies),
        "request_seconds": statistics.median(reply.last_token_seconds for reply in replies),
        "context_tokens": statistics.fmean(reply.prompt_tokens for reply in replies),
        "cached_tokens": statistics.fmean(reply.cached_tokens for reply in replies),
    }


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint whose tokenizer and template are used.")
    ] = Path("checkpoints/demo"),
    trace: Annotated[
        Path, typer.Option(help="TIMESTAMP,ContextTokens,GeneratedTokens; .gz is read too.")
    ] = AZURE,
    requests: Annotated[int, typer.Option(help="Requests offered at each rate.")] = 200,
    repeats: Annotated[int, typer.Option(help="Searches of both ways, of other requests.")] = 7,
    precision: Annotated[
        float, typer.Option(help="Largest ratio of the rates a search ends between.")
    ] = 1.1,
    answer_tokens: Annotated[int, typer.Option(help="The longest answer.")] = ANSWER_TOKENS,
    batched_tokens: Annotated[
        int, typer.Option(help="Tokens in one engine step; prompts are read in such chunks.")
    ] = BATCHED_TOKENS,
) -> None:
    """Measure the goodput of recipes and of prompts under a fixed protocol."""
    plan = Plan(trace, requests, repeats, precision, answer_tokens)
    with stand(checkpoint, batched_tokens=batched_tokens) as at:
        measured = asyncio.run(measure(at, plan))
    report = {
        **provenance("bench.goodput"),
        "model": asdict(MODEL),
        "batched_tokens": batched_tokens,
        **measured,
    }
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    say(f"goodput: {report['goodput_ratio']}")


def protocol_figures() -> dict[str, Any]:
    """Return what the protocol fixes."""
    return {
        "tenants": TENANTS,
        "zipf_exponent": 1.0,
        "prompt_tokens": PROMPT_TOKENS,
        "kv_prompts": KV_PROMPTS,
        "message_tokens": [LEAST_TOKENS, MESSAGE_TOKENS],
        "share_in_time": SHARE_IN_TIME,
        "first_token_factor": FIRST_TOKEN_FACTOR,
        "token_gap_factor": TOKEN_GAP_FACTOR,
    }


if __name__ == "__main__":
    typer.run(main)
