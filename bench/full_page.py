"""The section of docs/results.md on `make bench-full`: each measurement that is there."""

import json
from pathlib import Path
from typing import Any, Final

from bench.readme import RESULTS

FOLDER: Final = RESULTS / "full"
GOODPUT: Final = {
    "goodput": "the protocol, prompts read in chunks of 512",
    "goodput_whole_prompts": "prompts read in chunks of 4,096",
    "goodput_long_answers": "answers of up to 400 tokens",
}


def full(folder: Path = FOLDER) -> list[str]:
    """Return the section, or nothing where nothing was measured."""
    files = sorted(folder.glob("*.json"))
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in files}
    lines = [
        *_first_token(found.get("first_token")),
        *_goodput({name: found[name] for name in GOODPUT if name in found}),
        *_rotation(found.get("rotation")),
        *_cold_start(found.get("cold_start")),
    ]
    return ["## Serving at full length", "", "`make bench-full`", "", *lines] if lines else []


def _first_token(results: dict[str, Any] | None) -> list[str]:
    if results is None:
        return []
    lines = [
        "| tokens of the prompt | recipe, ms | in the prefix cache, over recipe | dropped, over "
        "recipe |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each['prompt_tokens']:,} | {1_000 * each['median_seconds']['compiled']:.0f} | "
        f"{_span(each['warm_over_compiled'])} | {_span(each['evicted_over_compiled'])} |"
        for each in results["lengths"]
    ]
    return [*lines, ""]


def _goodput(results: dict[str, dict[str, Any]]) -> list[str]:
    if not results:
        return []
    lines = ["| goodput | recipes over prompts |", "|---|---|"]
    lines += [
        f"| {GOODPUT[name]} ({each['protocol']['repeats']} searches of each) | "
        f"{_span(each['goodput_ratio'])} |"
        for name, each in results.items()
    ]
    return [*lines, ""]


def _rotation(results: dict[str, Any] | None) -> list[str]:
    if results is None:
        return []
    lines = ["| tasks in rotation | tokens over the bare engine's |", "|---|---|"]
    lines += [
        f"| {int(case.split('_')[1]):,}, {case.split('_')[0]} | {_span(ratio)} |"
        for case, figures in results["ratios"].items()
        if case != "bare" and (ratio := figures["throughput_over_bare"])
    ]
    return [*lines, ""]


def _cold_start(results: dict[str, Any] | None) -> list[str]:
    if results is None:
        return []
    lines = [
        "| prompts of the small checkpoint | compile, ms | `POST /v1/tasks` to first token, ms | "
        "generator alone, CPU ms | compiled pays after requests (prompt dropped; cached) |",
        "|---|---|---|---|---|",
    ]
    for length, each in results["starts"].items():
        pays = "; ".join(
            f"{requests:.0f}" if requests is not None else "never"
            for requests in each["break_even_requests"].values()
        )
        lines.append(
            f"| {length}, {each['prompt_tokens']:.0f} tokens | {_span(each['compile_ms'], 0)} | "
            f"{_span(each['first_token_ms'], 0)} | "
            f"{_span(results['generator_alone_ms'][length], 0)} | {pays} |"
        )
    rates = ", ".join(
        f"{rate:.0f} by {clients}"
        for clients, rate in results["compiles_per_second_by_clients"].items()
    )
    return [*lines, "", f"Compiles a second, by clients at a time: {rates}.", ""]


def _span(figures: dict[str, float], digits: int = 2) -> str:
    low, high = (f"{figures[end]:.{digits}f}" for end in ("low", "high"))
    return f"{figures['median']:.{digits}f} ({low} to {high})"
