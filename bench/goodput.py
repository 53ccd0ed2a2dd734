"""`python -m bench.goodput`: the highest rate at which 95 % of requests are answered in time.

A fixed protocol: 256 tenants with a system prompt of 1,000 tokens each, drawn by Zipf's law with
exponent 1, and KV memory for 20 of them. Requests come when a trace says, whether or not earlier
ones are answered. Two ways, the same requests:

prompt  the prompt is in context, the engine is bare and its prefix cache on
recipe  the engine has the pool, requests have recipes

In time: first token within 5 times, and tokens on average within 2 times, of what an idle engine
takes for the way *prompt* with a prompt that is not cached. The limits are the same for both ways,
in seconds. Rates are found by bisection; both ways take turns. Seconds are those of the engines'
own clock (`bench.engine_clock`): CPU time of one core, without HTTP.
"""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from bench.arrivals import AZURE
from bench.engine_environment import ENVIRONMENT
from bench.limits import Limits
from bench.load import Reply
from bench.model import BenchModel
from bench.paired import interval
from bench.progress import say
from bench.provenance import provenance
from bench.stand import (
    ANSWER_TOKENS,
    BATCHED_TOKENS,
    KV_PROMPTS,
    KV_TOKENS,
    MESSAGE_TOKENS,
    MODEL,
    PROMPT_TOKENS,
)
from bench.trials import (
    LEAST_TOKENS,
    SHARE_IN_TIME,
    TENANTS,
    WAYS,
    Plan,
    Served,
    Trial,
    Trials,
)
from config.environment import export_environment
from loragen.recipe import Recipe

FIRST_TOKEN_FACTOR: Final = 5
TOKEN_GAP_FACTOR: Final = 2


def measure(ways: Mapping[str, Served], plan: Plan) -> dict[str, Any]:
    """Return limits, every trial, and the goodput of both ways by repeat."""
    protocol = Trials(ways, plan)
    unloaded = protocol.unloaded()
    limits = limits_of(unloaded["prompt"])
    say(f"goodput: limits {limits}")
    guesses = {
        way: 1 / statistics.median(reply.last_token_seconds for reply in replies)
        for way, replies in unloaded.items()
    }
    found: list[dict[str, Any]] = []
    trials: list[Trial] = []
    for seed in range(plan.repeats):
        searches, tried = protocol.search(
            guesses, precision=plan.precision, limits=limits, seed=seed
        )
        trials += tried
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
    ] = Path("checkpoints/small"),
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
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as folder:
        model = BenchModel.create(Path(folder), checkpoint / "edge", MODEL)
        measured = measure(engines(model, batched_tokens=batched_tokens), plan)
    report = {
        **provenance("bench.goodput"),
        "model": asdict(MODEL),
        "batched_tokens": batched_tokens,
        **measured,
    }
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    say(f"goodput: {report['goodput_ratio']}")


def engines(model: BenchModel, *, batched_tokens: int) -> dict[str, Served]:
    """Return an engine for each way."""
    export_environment(**ENVIRONMENT)  # read when vLLM is loaded, so only now:
    from bench.engine_clock import ClockedEngine, Tenants, random_tokens

    drawn = np.random.default_rng(0)
    prompts = [random_tokens(drawn, PROMPT_TOKENS) for _ in range(TENANTS)]
    recipes = [Recipe.from_text(model.recipe(tenant)) for tenant in range(TENANTS)]
    return {
        way: ClockedEngine(model, tenants, kv_tokens=KV_TOKENS, batched_tokens=batched_tokens)
        for way, tenants in {
            "prompt": Tenants(prompts=prompts),
            "recipe": Tenants(recipes=recipes),
        }.items()
    }


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
