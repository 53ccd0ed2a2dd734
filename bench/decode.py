"""`python -m bench.decode`: what mixing recipes costs a decode step, against what it must cost.

Layers: FFN blocks alone, bare, with our pool, with adapters in groups (`bench.ffn`), in rounds of
one pass each in shuffled order. Engines: two real vLLM engines in this process, one with a pool,
that take turns step by step (`bench.engine`). All on one thread by its CPU time, which others on
the machine disturb least. All ratios are of pairs taken side by side, medians with 95 % bootstrap
intervals; all raw times are in the JSON. The five figures of `summary`:

    gate_vs_bare_decode     bare over gate-space time of a wave's decode steps, 64 distinct tasks
    ceiling                 1 / (1 + R (1/d + 1/f) * s), s the FFNs' measured share of a bare step:
                            gate-space at the speed of the base weights, nothing lost besides
    gate_flatness_1_to_max  the same ratio with the most tasks in rotation over that with one, of
                            whole waves, so that placing new recipes counts
    gate_vs_grouped_8, _64  grouped over gate-space time of FFN blocks of the engine's shape, 64
                            tokens of 8 or 64 distinct tasks
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.engine_environment import ENVIRONMENT
from config.environment import export_environment


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint whose tokenizer and template are used.")
    ] = Path("checkpoints/small"),
    only: Annotated[
        str, typer.Option(help="'layers' or 'engines': leave the other half of the JSON as it is.")
    ] = "",
    layer_rounds: Annotated[int, typer.Option(help="Rounds of FFN blocks.")] = 11,
    engine_rounds: Annotated[int, typer.Option(help="Rounds of engine waves.")] = 7,
    tasks: Annotated[int, typer.Option(help="The most distinct tasks in rotation.")] = 100_000,
) -> None:
    """Measure decode steps with recipes against the bare engine and grouped adapters."""
    export_environment(**ENVIRONMENT)  # read when vLLM is loaded, so only now:
    from bench.layers import measure_layers
    from bench.waves import measure_engines

    report: dict[str, Any] = json.loads(out.read_text("utf-8")) if only and out.exists() else {}
    command = " ".join(["python -m bench.decode", *sys.argv[1:]])
    if only != "engines":
        report["layers"] = {"command": command, "shapes": measure_layers(rounds=layer_rounds)}
    if only != "layers":
        measured = measure_engines(checkpoint, rounds=engine_rounds, tasks=tasks)
        report["engines"] = {"command": command, **measured}
    report["machine"] = {"cpus": os.cpu_count(), "platform": platform.platform()}
    if {"layers", "engines"} <= report.keys():
        report["summary"], report["summary_95"] = summary(report), intervals(report)
        typer.echo(json.dumps(report["summary"], indent=2), err=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def summary(report: dict[str, Any]) -> dict[str, float]:
    """Return the five figures of a report."""
    return {name: figure["median"] for name, figure in _figures(report).items()}


def intervals(report: dict[str, Any]) -> dict[str, list[float]]:
    """Return their 95 % intervals."""
    return {name: [figure["low"], figure["high"]] for name, figure in _figures(report).items()}


def engine_shape(report: dict[str, Any]) -> dict[str, Any]:
    """Return the measured FFN blocks that are like the engine's."""
    protocol = report["engines"]["protocol"]
    engine = {
        "hidden": report["engines"]["model"]["hidden"],
        "tokens": protocol["batch"],
        "threads": protocol["threads"],
    }
    (shape,) = (shape for shape in report["layers"]["shapes"] if engine.items() <= shape.items())
    found: dict[str, Any] = shape
    return found


def _figures(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    engines, shape = report["engines"], engine_shape(report)
    return {
        "gate_vs_bare_decode": engines["decode_over_bare"]["64"],
        "ceiling": engines["ceiling"],
        "gate_flatness_1_to_max": engines["flatness"][max(engines["flatness"], key=int)],
        "gate_vs_grouped_8": shape["over_grouped"]["8"],
        "gate_vs_grouped_64": shape["over_grouped"]["64"],
    }


if __name__ == "__main__":
    typer.run(main)
