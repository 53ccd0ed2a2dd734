"""`python -m bench.summary`: the eight figures of serving with recipes.

It runs `bench.decode`, `bench.first_token` with prompts of 2,000 tokens, and `bench.goodput`, each
in a process of its own and for minutes, and joins their results. `make bench-full` runs the same
for hours.

    gate_vs_bare_decode, ceiling, gate_flatness_1_to_max, gate_vs_grouped_8, gate_vs_grouped_64
        see `bench.decode`
    ttft_prompt_warm_over_compiled, ttft_prompt_evicted_over_compiled
        time to the first token with a prompt of 2,000 tokens, in the prefix cache or dropped from
        it, over that with a recipe
    goodput_ratio
        goodput of recipes over that of prompts
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.losses import TARGETS, losses, missed_targets
from bench.progress import say
from bench.provenance import provenance

PARTS: Final = {
    "decode": (),
    "first_token": ("--prompt-tokens", "2000", "--pairs", "12"),
    # A search ends after one bisection of a doubling: more would take hours.
    "goodput": ("--requests", "20", "--repeats", "1", "--precision", "1.45"),
}


def main(
    out: Annotated[
        Path, typer.Option(help="Where to write the JSON; those of the parts go beside it.")
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Measure these parts, keep the others: {', '.join(PARTS)}; or none."),
    ] = None,
) -> None:
    """Measure serving with recipes, and say where it loses."""
    wanted = set(only or PARTS)
    if unknown := wanted - {*PARTS, "none"}:
        raise typer.BadParameter(f"no part {', '.join(sorted(unknown))}", param_hint="--only")
    files = {part: out.with_name(f"{part}.json") for part in PARTS}
    for part, options in PARTS.items():
        if part in wanted:
            say(f"{part}, in a process of its own")
            command = [sys.executable, "-m", f"bench.{part}", "--out", str(files[part]), *options]
            subprocess.run(command, check=True)
    parts = {part: json.loads(file.read_text("utf-8")) for part, file in files.items()}
    report = join(parts["decode"], parts["first_token"], parts["goodput"])
    out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    for name in TARGETS:
        say(f"{name}: {report[name]:.3g} {report['intervals_95'][name]}")
    for loss in report["losses"]:
        say(loss)


def join(decode: dict[str, Any], tokens: dict[str, Any], load: dict[str, Any]) -> dict[str, Any]:
    """Return the eight figures, their 95 % intervals, and where we lose."""
    (longest,) = tokens["lengths"][-1:]
    measured = {
        "ttft_prompt_warm_over_compiled": longest["warm_over_compiled"],
        "ttft_prompt_evicted_over_compiled": longest["evicted_over_compiled"],
        "goodput_ratio": load["goodput_ratio"],
    }
    figures = decode["summary"] | {name: each["median"] for name, each in measured.items()}
    intervals = {name: [each["low"], each["high"]] for name, each in measured.items()}
    return {
        **figures,
        "intervals_95": decode["summary_95"] | intervals,
        "losses": losses(figures, decode, longest, load),
        "missed_targets": missed_targets(figures),
        **provenance("bench.summary"),
    }


if __name__ == "__main__":
    typer.run(main)
