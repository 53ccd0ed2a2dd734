"""`python -m bench.serving`: many tasks in a batch, the bare engine, the full prompt in context.

Two real workers over one random edge model: one with a pool (gate-space), one bare. Cases are
interleaved in every round, and every ratio is paired within its round, so that drift of a shared
machine cancels. All raw waves go into the JSON.
"""

import asyncio
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench.load import Call, Wave, run_wave
from bench.model import BenchModel, ModelSize
from bench.paired import interval
from bench.progress import say
from bench.texts import TextMaker
from bench.worker import workers

QUESTION: Final = "hello, who are you?"

Case = Callable[[int], list[Call]]


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint whose tokenizer and template are used.")
    ] = Path("checkpoints/small"),
    rounds: Annotated[int, typer.Option(help="Rounds; every case runs once in each.")] = 5,
    batch: Annotated[int, typer.Option(help="Concurrent requests in a wave.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="Tokens each request generates.")] = 64,
    prompt_tokens: Annotated[int, typer.Option(help="Length of the full prompt.")] = 500,
) -> None:
    """Measure serving with recipes against the bare engine and the full prompt in context."""
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as name:
        folder = Path(name)
        say(f"writing a random edge model to {folder}")
        model = BenchModel.create(folder, checkpoint / "edge", ModelSize())
        with workers(model, folder, say) as (gate_url, bare_url):
            cases = build_cases(
                model,
                gate_url,
                bare_url,
                batch=batch,
                prompts=partial(TextMaker(checkpoint / "edge"), tokens=prompt_tokens),
            )
            waves = asyncio.run(measure(cases, rounds=rounds, max_tokens=max_tokens))
    compared = ratios(waves)
    report = {
        "command": " ".join(["python -m bench.serving", *sys.argv[1:]]),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "model": {name: getattr(model.size, name) for name in ModelSize.__dataclass_fields__},
        "protocol": {
            "rounds": rounds,
            "batch": batch,
            "max_tokens": max_tokens,
            "prompt_tokens": prompt_tokens,
            "dtype": "bfloat16",
            "note": "ratios are medians of per-round pairs with 95% bootstrap intervals",
        },
        "ratios": compared,
        "waves": {case: [wave.to_json() for wave in each] for case, each in waves.items()},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    for case, figures in compared.items():
        say(f"{case}: {figures}")


def build_cases(
    model: BenchModel, gate_url: str, bare_url: str, *, batch: int, prompts: Callable[[int], str]
) -> dict[str, Case]:
    """Return the calls of every case by round."""
    fixed = [model.recipe(seed) for seed in range(batch)]

    def gate(distinct: int) -> Case:
        return lambda _: [Call(gate_url, recipe=fixed[i % distinct]) for i in range(batch)]

    def fresh(round_: int) -> list[Call]:
        first = 1_000_000 + round_ * batch
        return [Call(gate_url, recipe=model.recipe(first + i)) for i in range(batch)]

    def evicted(round_: int) -> list[Call]:
        first = 1_000_000 + round_ * batch
        return [Call(bare_url, system_prompt=prompts(first + i)) for i in range(batch)]

    shared = prompts(0)
    return {
        "bare": lambda _: [Call(bare_url)] * batch,
        "gate_none": lambda _: [Call(gate_url)] * batch,
        "gate_1_task": gate(1),
        f"gate_{batch}_tasks": gate(batch),
        "gate_new_tasks": fresh,
        "prompt_1_task_cached": lambda _: [Call(bare_url, system_prompt=shared)] * batch,
        "prompt_new_tasks": evicted,
    }


async def measure(cases: dict[str, Case], *, rounds: int, max_tokens: int) -> dict[str, list[Wave]]:
    """Run every case once a round, in an order shuffled per round; the first round is warm-up."""
    waves: dict[str, list[Wave]] = {case: [] for case in cases}
    # vLLM closes idle connections after 5 s; one that closes as it is used again breaks a wave.
    limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        for round_ in range(rounds + 1):
            order = list(cases)
            random.Random(round_).shuffle(order)
            for case in order:
                wave = await run_wave(
                    client, cases[case](round_), question=QUESTION, max_tokens=max_tokens
                )
                rate = f"{wave.output_tokens_per_second:.0f} tokens/s"
                say(f"round {round_}/{rounds} {case}: {rate}, {wave.elapsed_seconds:.1f} s")
                if round_:
                    waves[case].append(wave)
    return waves


def ratios(waves: dict[str, list[Wave]]) -> dict[str, dict[str, Any]]:
    """Return per case its throughput and time to first token over the bare engine's."""
    return {
        case: {
            "throughput_over_bare": interval(
                [
                    wave.output_tokens_per_second / bare.output_tokens_per_second
                    for wave, bare in zip(each, waves["bare"], strict=True)
                ]
            ),
            "first_token_over_bare": interval(
                [
                    wave.first_token_p50_seconds / bare.first_token_p50_seconds
                    for wave, bare in zip(each, waves["bare"], strict=True)
                ]
            ),
        }
        for case, each in waves.items()
    }


if __name__ == "__main__":
    typer.run(main)
