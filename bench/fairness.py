"""`python -m bench.fairness`: what one tenant notices of another, on the real stack.

flood        a tenant asks one question after the other, another has 100 under way at all times, or
             as many as its share of the batch, or none: seconds to the first token, in rounds of
             the three whose order turns; the first question of each, after a pause, is not counted.
             The edge model is a random one of 121 million parameters, whose step takes longer than
             all that the stack does about it, as that of an edge model of use does
small_flood  the same with the small checkpoint, whose step is a few milliseconds: what is measured
             is mostly processes that wait for a core
timing       a tenant has prompts compiled that another has, or that nobody has: seconds of each,
             and how well they tell the two apart

Redis, gateway, worker and, but for `flood`, router service (Ray) are the real ones, `small_flood`
and `timing` of the small checkpoint. On a machine that does other work the figures are that work's.
"""

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench import flood
from bench.model import BenchModel, ModelSize
from bench.paired import quantile_differences, told_apart
from bench.progress import say
from bench.provenance import provenance
from bench.tenant_stack import TenantStack, tenant_stack
from loragen.suite.small import SMALL
from loragen.suite.splits import Split

CHECKPOINT: Final = Path("checkpoints/small")
OWNER, STRANGER = "owner", "stranger"
GROUPS: Final = ("another_has_it", "nobody_has_it", "has_it_itself")
"""The third shows that the measure can tell what it should: its own tasks are there already."""


class Part(StrEnum):
    """What is measured, each with a stack of its own."""

    FLOOD = "flood"
    SMALL_FLOOD = "small_flood"
    TIMING = "timing"


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    only: Annotated[
        list[Part] | None, typer.Option(help="Part to measure; repeatable. Default: all.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds: no neighbour, a modest one, a flood.")] = 9,
    questions: Annotated[int, typer.Option(help="Questions beside each of them.")] = 60,
    clients: Annotated[int, typer.Option(help="Requests of the flood under way.")] = 100,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each answer to the calm one.")] = 4,
    flood_max_tokens: Annotated[int, typer.Option(help="Tokens of the flood's answers.")] = 200,
    batch: Annotated[int, typer.Option(help="Requests in the worker's batch.")] = 32,
    share: Annotated[
        int, typer.Option(help="Of them, those one tenant may have (max_outstanding_of_tenant).")
    ] = 4,
    prompts: Annotated[int, typer.Option(help="Prompts compiled in each group.")] = 2_000,
    minutes: Annotated[float, typer.Option(help="Begin no further prompts after so long.")] = 20.0,
) -> None:
    """Measure a flood's cost to another tenant, and what the time of a compile tells."""
    protocol = flood.Protocol(clients, share, questions, max_tokens, flood_max_tokens)
    model = {
        "max_num_seqs": batch,
        "max_outstanding_of_tenant": share,
        "max_waiting": 4 * clients,
        # The flood waits in line: one that is refused asks again at once, from the same two cores.
        "max_wait_seconds": 600.0,
    }
    measures: dict[Part, Callable[[], dict[str, Any]]] = {
        Part.FLOOD: lambda: measure_wide_flood(protocol, model, rounds=rounds),
        Part.SMALL_FLOOD: lambda: measure_flood(protocol, model, rounds=rounds),
        Part.TIMING: lambda: measure_timing(prompts, minutes=minutes),
    }
    report: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {}
    for part in only or Part:
        measured = measures[part]()
        report[part] = {**provenance("bench.fairness"), **measured}
        out.write_text(json.dumps(report, indent=2) + "\n")
        say(f"{part}: {json.dumps(report[part])}")


def measure_wide_flood(
    protocol: flood.Protocol, model: dict[str, Any], *, rounds: int
) -> dict[str, Any]:
    """Return the figures of a flood for a random edge model of the benchmarks' width."""
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as folder:
        made = BenchModel.create(Path(folder), CHECKPOINT / "edge", ModelSize())
        wide = {"model": str(made.edge), "generator": None, "kv_cache_gib": 1.0}
        return measure_flood(protocol, {**model, **wide}, rounds=rounds)


def measure_flood(
    protocol: flood.Protocol, model: dict[str, Any], *, rounds: int
) -> dict[str, Any]:
    """Return the figures of a flood for an edge model with these settings."""
    with tenant_stack([flood.CALM, flood.FLOOD], model, say) as stack:
        measured = asyncio.run(flood.measure(stack, protocol, rounds=rounds, say=say))
    asked = {"rounds": rounds, "batch": model["max_num_seqs"], **asdict(protocol)}
    return {"protocol": asked, **flood_report(measured)}


def measure_timing(prompts: int, *, minutes: float) -> dict[str, Any]:
    """Return how well the time of a compile tells whose prompt it is."""
    with tenant_stack([OWNER, STRANGER], {}, say) as stack:
        return timing_report(compile_all(stack, prompts, minutes=minutes))


def flood_report(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the flood, and whether its bound holds.

    The bound: at most a fifth more than without it, and a step of the engine, which a request that
    comes must let end.
    """
    rounds = measured["rounds"]
    steps = [step for each in rounds for step in each["flood"].steps]
    step_ms = round(1_000 * statistics.median(steps), 2)
    unloaded = flood.pairs(rounds, "nobody", "flood")
    p99 = quantile_differences(unloaded, 0.99)
    bound_ms = round(1.2 * p99["off_ms"] + step_ms, 2)
    return {
        "first_token_p50": quantile_differences(unloaded, 0.5),
        "first_token_p99": p99,
        "step_ms": step_ms,
        "bound_ms": bound_ms,
        "holds": p99["on_ms"] <= bound_ms,
        "against_a_modest_neighbour": {
            f"first_token_p{round(100 * at)}": quantile_differences(
                flood.pairs(rounds, "share", "flood"), at
            )
            for at in (0.5, 0.99)
        },
        "neighbours_requests": measured["outcomes"],
        "rounds_p50_ms": [
            [round(1_000 * statistics.median(each[kind].first), 2) for kind in flood.NEIGHBOURS]
            for each in rounds
        ],
    }


def timing_report(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return how well each group is told from that which nobody has."""
    nobody = seconds["nobody_has_it"]
    return {
        "another_against_nobody": told_apart(nobody, seconds["another_has_it"]),
        "itself_against_nobody": told_apart(nobody, seconds["has_it_itself"]),
    }


def compile_all(stack: TenantStack, prompts: int, *, minutes: float) -> dict[str, list[float]]:
    """Return the seconds that a stranger's compiles took, in an order that is drawn."""
    chance, started = random.Random(0), time.perf_counter()
    seconds: dict[str, list[float]] = {group: [] for group in GROUPS}
    with httpx.Client(base_url=stack.url, timeout=120) as client:
        for number in range(prompts + 1):  # the first warms up
            if time.perf_counter() - started > 60 * minutes:
                break
            texts = {group: _prompt(3 * number + i) for i, group in enumerate(GROUPS)}
            _compile(client, stack, OWNER, texts["another_has_it"])
            _compile(client, stack, STRANGER, texts["has_it_itself"])
            for group in chance.sample(GROUPS, len(GROUPS)):
                took = _compile(client, stack, STRANGER, texts[group])
                if number:
                    seconds[group].append(took)
            if number % 100 == 0:
                say(f"prompt {number}/{prompts}")
    return seconds


def _prompt(seed: int) -> str:
    family = SMALL.seen[(seed // len(GROUPS)) % len(SMALL.seen)]
    # A number, because a suite of few words would draw some prompts twice.
    return f"{SMALL.draw(family, Split.UNSEEN_PROMPTS, seed).text} (No. {seed:06d})"


def _compile(client: httpx.Client, stack: TenantStack, tenant: str, prompt: str) -> float:
    body = {"model": "demo", "system_prompt": prompt}
    started = time.perf_counter()
    reply = client.post("/v1/tasks", json=body, headers=stack.headers(tenant))
    took = time.perf_counter() - started
    if reply.is_error or reply.json()["status"] != "ready":
        raise RuntimeError(reply.text)
    return took


if __name__ == "__main__":
    typer.run(main)
