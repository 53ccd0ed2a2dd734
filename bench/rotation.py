"""`python -m bench.rotation`: throughput by the number of distinct tasks, over HTTP.

Waves of concurrent requests whose tasks are drawn from 1 to 100,000, uniformly or by Zipf's law
(exponent 1), in one worker; a bare worker answers the same without tasks. All cases run once in
each round, and every ratio is paired within its round. The bare engine is also what a model with
one tenant's recipe merged into its weights would do: its shapes are the same.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from bench.load import Call
from bench.provenance import provenance
from bench.serving import Case, measure, ratios
from bench.stand import MODEL, Stand, stand

TASKS: Final = (1, 32, 1_000, 10_000, 100_000)


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint whose tokenizer and template are used.")
    ] = Path("checkpoints/small"),
    rounds: Annotated[int, typer.Option(help="Rounds; every case runs once in each.")] = 9,
    batch: Annotated[int, typer.Option(help="Concurrent requests in a wave.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="Tokens each request generates.")] = 64,
) -> None:
    """Measure throughput with 1 to 100,000 distinct tasks against the bare engine."""
    with stand(checkpoint) as at:
        cases = build_cases(at, batch)
        waves = asyncio.run(measure(cases, rounds=rounds, max_tokens=max_tokens))
    report = {
        **provenance("bench.rotation"),
        "model": asdict(MODEL),
        "protocol": {"rounds": rounds, "batch": batch, "max_tokens": max_tokens},
        "ratios": ratios(waves),
        "waves": {case: [wave.to_json() for wave in each] for case, each in waves.items()},
    }
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def build_cases(at: Stand, batch: int) -> dict[str, Case]:
    """Return the calls of every case by round."""
    cases: dict[str, Case] = {"bare": lambda _: [Call(at.bare_url)] * batch}
    for tasks in TASKS:
        for law, weights in (("uniform", np.ones(tasks)), ("zipf", 1 / np.arange(1, tasks + 1))):
            cases[f"{law}_{tasks}"] = _drawn(at, weights / weights.sum(), batch)
    return cases


def _drawn(at: Stand, chances: Any, batch: int) -> Callable[[int], list[Call]]:
    def calls(round_: int) -> list[Call]:
        tasks = np.random.default_rng(round_).choice(len(chances), batch, p=chances)
        return [Call(at.gate_url, recipe=at.model.recipe(int(task))) for task in tasks]

    return calls


if __name__ == "__main__":
    typer.run(main)
