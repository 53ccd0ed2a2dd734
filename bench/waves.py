"""Waves of requests through a gate-space and a bare vLLM engine, side by side, step by step."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.engine import PROMPT, DecodeEngine
from bench.model import BenchModel, ModelSize
from bench.paired import median_interval, ratio
from bench.progress import say
from loragen.recipe import Recipe

MODEL: Final = ModelSize(experts=128)
BATCH: Final = 64
STEPS: Final = 8
"""Decode steps of a wave."""

ROTATIONS: Final = (1, BATCH, 1_000, 10_000)
"""Distinct tasks whose requests take turns, and then the most there are."""

Wave = dict[str, list[float]]
"""Seconds of each step by engine, the one that reads the prompts first."""


def measure_engines(checkpoint: Path, *, rounds: int, tasks: int) -> dict[str, Any]:
    """Time waves of a gate-space and a bare engine side by side."""
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as name:
        say(f"writing a random edge model to {name}")
        model = BenchModel.create(Path(name), checkpoint / "edge", MODEL)
        bare = DecodeEngine(model, batch=BATCH, pool=False)
        gate = DecodeEngine(model, batch=BATCH, pool=True)
        admission = admissions(model, gate, tasks=tasks)
        waves: dict[str, list[Wave]] = {}
        for round_ in range(rounds + 1):
            cases = ["base", *map(str, (*ROTATIONS, tasks))]
            random.Random(round_).shuffle(cases)
            for case in cases:
                wave = side_by_side(bare, gate, batch_of(model, case, round_))
                if round_:  # the first round is warm-up
                    waves.setdefault(case, []).append(wave)
            say(f"engines: round {round_}/{rounds}")
        share = ffn_share(bare)
    return engine_report(waves, share, admission)


def batch_of(model: BenchModel, case: str, round_: int) -> list[Recipe | None]:
    """Return the recipes of a wave: the next of the rotation, or none."""
    if case == "base":
        return [None] * BATCH
    first, tasks = round_ * BATCH, int(case)
    seeds = [(first + i) % tasks for i in range(BATCH)]
    made = {seed: Recipe.from_text(model.recipe(seed)) for seed in set(seeds)}
    return [made[seed] for seed in seeds]


def side_by_side(bare: DecodeEngine, gate: DecodeEngine, recipes: Sequence[Recipe | None]) -> Wave:
    """Run a wave in both engines in turns, step by step; the first step reads prompts."""
    seconds: Wave = {"bare": [], "gate": []}
    with (
        bare.wave([None] * len(recipes), steps=STEPS) as bare_step,
        gate.wave(recipes, steps=STEPS) as gate_step,
    ):
        turns = [("bare", bare_step), ("gate", gate_step)]
        for _ in range(STEPS + 1):
            for engine, step in turns:
                seconds[engine].append(step())
            turns.reverse()
    return seconds


def admissions(model: BenchModel, gate: DecodeEngine, *, tasks: int) -> dict[str, Any]:
    """Place that many recipes, one after another; return what each took."""
    say(f"engines: placing {tasks} recipes")
    seconds = sorted(gate.admit(Recipe.from_text(model.recipe(seed))) for seed in range(tasks))
    return {
        "recipes": tasks,
        "recipe_bytes": len(Recipe.from_text(model.recipe(0)).data),
        "p50_ms": round(1e3 * seconds[tasks // 2], 4),
        "p99_ms": round(1e3 * seconds[int(0.99 * tasks)], 4),
    }


def ffn_share(bare: DecodeEngine) -> dict[str, float]:
    """Return the FFNs' share of a decode step's time."""
    shares = []
    with bare.wave([None] * BATCH, steps=3 * STEPS) as step:
        step()
        for _ in range(3 * STEPS):
            with bare.ffn_seconds() as ffn:
                whole = step()
            shares.append(sum(ffn) / whole)
    return median_interval(shares)


def engine_report(
    waves: dict[str, list[Wave]], share: dict[str, float], admission: Any
) -> dict[str, Any]:
    """Return the ratios of all waves, and their times."""
    cost = MODEL.experts * (1 / MODEL.hidden + 1 / MODEL.intermediate)
    over_bare = {case: [_ratio(wave) for wave in each] for case, each in waves.items()}
    return {
        "model": {name: getattr(MODEL, name) for name in ModelSize.__dataclass_fields__},
        "protocol": {
            "batch": BATCH,
            "threads": 1,
            "steps": STEPS,
            "dtype": "bfloat16",
            "prompt_tokens": len(PROMPT),
        },
        "ffn_share": share,
        "ceiling": {
            "median": round(1 / (1 + cost * share["median"]), 4),
            "low": round(1 / (1 + cost * share["high"]), 4),
            "high": round(1 / (1 + cost * share["low"]), 4),
        },
        "decode_over_bare": {
            case: median_interval([_ratio(wave, first=1) for wave in each])
            for case, each in waves.items()
        },
        "wave_over_bare": {case: median_interval(each) for case, each in over_bare.items()},
        "flatness": {
            tasks: ratio(each, over_bare["1"])
            for tasks, each in over_bare.items()
            if tasks != "base"
        },
        "admission": admission,
        "seconds": waves,
    }


def _ratio(wave: Wave, *, first: int = 0) -> float:
    return sum(wave["bare"][first:]) / sum(wave["gate"][first:])
