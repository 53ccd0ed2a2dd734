"""FFN blocks timed alone: what the pool's update costs beside the base weights, and adapters'."""

import random
import time
from collections.abc import Callable
from typing import Any, Final

import torch

from bench.ffn import FfnSize, FfnStack
from bench.paired import ratio
from bench.progress import say

SIZES: Final = (FfnSize(1024, 2816, 128, blocks=10), FfnSize(2048, 5632, 128, blocks=3))
"""The bench model's FFN and TinyLlama's, each with the blocks that exceed all caches."""

DISTINCT: Final = {64: (1, 4, 8, 16, 64), 16: (1, 4, 8, 16), 1: (1,)}
"""Distinct tasks in a step, by its number of tokens."""

Times = dict[str, list[float]]
"""Seconds by way, one entry a round."""


def measure_layers(*, rounds: int) -> list[dict[str, Any]]:
    """Time FFN blocks of all sizes and numbers of tokens, on one thread, by its CPU time."""
    torch.set_num_threads(1)
    shapes = []
    with torch.inference_mode():
        for size in SIZES:
            say(f"layers of width {size.hidden}: making weights")
            stack = FfnStack.random(size, tokens=max(DISTINCT))
            for tokens, distinct in DISTINCT.items():
                times = in_rounds(stack.ways(tokens, distinct), rounds=rounds)
                shapes.append(shape_report(size, tokens, times))
    return shapes


def in_rounds(ways: dict[str, Callable[[], Any]], *, rounds: int) -> Times:
    """Run every way once a round, in an order shuffled per round; the first round is warm-up."""
    times: Times = {way: [] for way in ways}
    for round_ in range(rounds + 1):
        order = list(ways)
        random.Random(round_).shuffle(order)
        for way in order:
            started = time.process_time()
            ways[way]()
            if round_:
                times[way].append(time.process_time() - started)
    return times


def shape_report(size: FfnSize, tokens: int, times: Times) -> dict[str, Any]:
    """Return the ratios of one shape, and its times."""
    bare, distinct = times["bare"], [way[5:] for way in times if way.startswith("gate_")]
    gate = {count: times[f"gate_{count}"] for count in distinct}
    over_bare = {count: ratio(bare, gate[count]) for count in distinct}
    report: dict[str, Any] = {
        "hidden": size.hidden,
        "intermediate": size.intermediate,
        "columns": size.columns,
        "blocks": size.blocks,
        "threads": 1,
        "tokens": tokens,
        "ceiling": round(size.ceiling, 4),
        "gate_over_bare": over_bare,
        "share_of_ceiling": {
            count: {name: round(value / size.ceiling, 4) for name, value in each.items()}
            for count, each in over_bare.items()
        },
        "over_grouped": {c: ratio(times[f"grouped_{c}"], gate[c]) for c in distinct},
        "seconds": times,
    }
    say(f"d={size.hidden}, {tokens} tokens:")
    for count in distinct:
        share, grouped = report["share_of_ceiling"][count], report["over_grouped"][count]
        say(f"  {count} tasks: {share} of the ceiling, {grouped} over grouped adapters")
    return report
