"""`python -m bench.results_page`: write docs/results.md from bench/results, and nothing else.

`--check` only compares; a test runs it, so that no number on the page can drift from its file.
"""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.accuracy_page import demo, refining, small
from bench.exactness_page import differential
from bench.full_page import full
from bench.grid_page import grid
from bench.readme import RESULTS, load
from bench.serving_page import serving

MIN_ROUNDS: Final = 3
"""With fewer chats per cell an interval says nothing."""
_PACKAGES: Final = 8
PAGE: Final = Path(__file__).parents[1] / "docs" / "results.md"
WAYS: Final = {
    "prompt": "prompt and tools in context",
    "hybrid": "recipe of the prompt, tools in context",
    "recompile": "prompt and tools compiled at each change",
}

ANSWERS: Final = {
    "whole": "in one piece",
    "streamed": "streamed, 10 ms between tokens",
    "burst": "streamed, tokens as fast as they go",
}


def main(
    check: Annotated[bool, typer.Option("--check", help="Compare, write nothing.")] = False,
) -> None:
    """Bring docs/results.md up to date."""
    wanted = page()
    if check:
        raise typer.Exit(int(PAGE.read_text("utf-8") != wanted))
    PAGE.write_text(wanted, "utf-8")


def page() -> str:
    """Return the page."""
    head = [
        "# Results",
        "",
        "<!-- Written by `python -m bench.results_page` from bench/results; a test compares. -->",
        "",
    ]
    served = serving(load("serving_summary"), load("first_token"), load("goodput"))
    sections = {
        "demo_eval": demo,
        "refine_eval": refining,
        "small_eval": small,
        "grid": grid,
        "differential_summary": differential,
        "dynamic": dynamic,
        "gateway": gateway,
        "tiers": tiers,
        "soak": soak,
    }
    lines = [
        line
        for name, section in sections.items()
        if (RESULTS / f"{name}.json").exists()
        for line in section(load(name))
    ]
    foot = ["", "The memory that a task takes is in the [README](../README.md#figures)."]
    return "\n".join([*head, *served, *full(), *lines, *foot]) + "\n"


def dynamic(results: dict[str, Any]) -> list[str]:
    """Return the section on chats whose tools change."""
    protocol = results["protocol"]
    cells = sorted(
        results["cells"], key=lambda cell: (cell["every"], list(WAYS).index(cell["way"]))
    )
    return [
        "## Tools that change during a chat",
        "",
        f"`{results['command']}`",
        "",
        f"Chats of {protocol['turns']} turns with the small checkpoint, in which "
        f"{protocol['tools']} tools are replaced every k turns",
        f"by others never seen before. Chats per cell: {protocol['rounds']}, interleaved, on "
        f"{results['machine']['cpus']} CPU cores shared with other",
        f"work (load {results['machine']['load'][1]:.0f}). Times are means over a chat, compiling "
        "included: their median and 95% interval over chats.",
        "*Right* is greedy exact match with the answer that the prompt decides and that no tool "
        "changes. The",
        "toy was trained on single turns without tools; in such chats it is seldom right, however "
        "served.",
        "",
        "| k | way | tokens read per turn | of them cached | ms to first token | ms per turn | "
        "right |",
        "|---|---|---|---|---|---|---|",
        *map(_row, cells),
        "",
        *_token_verdict(cells),
        *(
            _time_verdicts(results, cells)
            if protocol["rounds"] >= MIN_ROUNDS
            else ["- **Time**: too few chats for a break-even; the times only say how it ran once."]
        ),
    ]


def gateway(results: dict[str, Any]) -> list[str]:
    """Return the section on what the gateway costs."""
    protocol = results["protocol"]
    return [
        "",
        "## What the gateway costs",
        "",
        f"`{results['command']}`",
        "",
        "CPU time of the gateway's process for one request, over that of a bare pass-through of",
        "Starlette and httpx before the same stub worker. The gateway is as it ships: keys, a task",
        "whose recipe it resolves, places in line, usage, metrics, Redis. Answers of "
        f"{protocol['tokens']} tokens;",
        f"{protocol['pairs']} pairs of {protocol['seconds']:g} s, medians and 95% intervals, on "
        f"{results['machine']['cpus']} CPU cores.",
        "",
        "| answers | CPU over pass-through | gateway, us | pass-through, us | Redis, us | "
        "requests per second over |",
        "|---|---|---|---|---|---|",
        *(_gateway_row(name, ratios) for name, ratios in results["ratios"].items()),
        "",
        *_profile(results["profile"]),
    ]


def _gateway_row(name: str, ratios: dict[str, Any]) -> str:
    own, other = (ratios["cpu_us"][side] for side in ("gateway", "pass_through"))
    cells = [
        ANSWERS[name],
        _ratio(ratios["cpu"]),
        _span(own),
        _span(other),
        f"{ratios['redis_cpu_us']['median']:.0f}",
        _ratio(ratios["requests_per_second"]),
    ]
    return f"| {' | '.join(cells)} |"


def _profile(profiles: dict[str, Any]) -> list[str]:
    if not profiles:
        return []
    packages = list(profiles["whole"]["packages"])[:_PACKAGES]
    return [
        "Whose code is at work in the gateway, by samples of its stack; the time of the standard",
        "library is that of who calls it.",
        "",
        f"| answers | {' | '.join(packages)} | others |",
        f"|{'---|' * (len(packages) + 2)}",
        *(_profile_row(name, profile["packages"], packages) for name, profile in profiles.items()),
        "",
    ]


def _profile_row(name: str, shares: dict[str, float], packages: list[str]) -> str:
    shown = [shares.get(package, 0.0) for package in packages]
    cells = [f"{100 * share:.0f}%" for share in [*shown, sum(shares.values()) - sum(shown)]]
    return f"| {' | '.join([ANSWERS[name], *cells])} |"


def tiers(results: dict[str, Any]) -> list[str]:
    """Return the section on a million tasks."""
    return [
        "",
        "## Many tasks in one Redis",
        "",
        f"`{results['command']}`",
        "",
        "Bytes of Redis' `used_memory` by task, and microseconds to resolve one by the gateway's",
        "own parts over loopback, one after the other: cold from Redis, warm from its memory.",
        "",
        "| tasks | recipe | prompt | all else | cold p50 | cold p99 | warm p50 | warm p99 |",
        "|---|---|---|---|---|---|---|---|",
        *map(_tiers_row, results["sizes"]),
        "",
    ]


def _tiers_row(size: dict[str, Any]) -> str:
    memory = size["memory"]
    cells = [
        f"{size['tasks']:,}",
        f"{memory['recipe_bytes']:.0f}",
        f"{memory['prompt_bytes']:.0f}",
        f"{memory['other_bytes_per_task']:.0f}",
        *(f"{size[tier][at]:.0f}" for tier in ("cold", "warm") for at in ("p50_us", "p99_us")),
    ]
    return f"| {' | '.join(cells)} |"


def soak(results: dict[str, Any]) -> list[str]:
    """Return the section on what grows."""
    judged = results["judged"]
    nearest = max(row["growth"] / row["allowed"] for row in judged)
    processes = len({row["pid"] for row in judged})
    return [
        "",
        "## What grows",
        "",
        f"`{results['command']}`",
        "",
        f"{results['tasks']:,} tasks made and asked, {results['calls']['delete 200']:,} of them "
        f"deleted, in {results['seconds'] / 60:.0f} minutes; restarted meanwhile:",
        f"{', '.join(each['part'] for each in results['restarts'])}. Memory, descriptors, threads "
        f"and series of {processes} processes, {len(judged)} slopes after",
        f"warm-up. Beyond its tolerance grew: {', '.join(results['grew']) or 'nothing'}. The "
        f"nearest came to {100 * nearest:.0f}% of what is allowed.",
        "",
    ]


def _token_verdict(cells: list[dict[str, Any]]) -> list[str]:
    """Return from which k on recompiling reads fewer tokens, the generator's reading included."""
    read = {(cell["way"], cell["every"]): cell["prompt_tokens_per_turn"] for cell in cells}
    turns = sorted({every for _, every in read})
    lines = []
    for way in ("hybrid", "prompt"):
        pays = [
            every
            for every in turns
            # What a compile reads is what it then saves: the prompt and the tools.
            if read["recompile", every] + (read["prompt", every] - read["recompile", every]) / every
            < read[way, every]
        ]
        said = f"from k = {pays[0]} on" if pays else "at no measured k"
        lines.append(
            f"- **Tokens**, the generator's counted too: recompiling reads fewer than {way} {said}."
        )
    return lines


def _time_verdicts(results: dict[str, Any], cells: list[dict[str, Any]]) -> list[str]:
    compiles = [cell["compile_ms"]["median"] for cell in cells if cell["compile_ms"]]
    return [
        f"- **A compile** takes {min(compiles):.0f} to {max(compiles):.0f} ms (medians).",
        *(_time_verdict(way, figures) for way, figures in results["recompile_over"].items()),
    ]


def _row(cell: dict[str, Any]) -> str:
    values = [
        str(cell["every"]),
        WAYS[cell["way"]],
        f"{cell['prompt_tokens_per_turn']:.0f}",
        f"{cell['cached_tokens_per_turn']:.0f}",
        _span(cell["first_token_ms"]),
        _span(cell["turn_ms"]),
        f"{100 * cell['right'] / cell['turns']:.0f}%",
    ]
    return f"| {' | '.join(values)} |"


def _ratio(figures: dict[str, float]) -> str:
    return f"{figures['median']:.2f} ({figures['low']:.2f} to {figures['high']:.2f})"


def _time_verdict(way: str, figures: dict[str, Any]) -> str:
    ratios = ", ".join(
        f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) at k = {ratio['every']}"
        for ratio in figures["time_ratio"]
    )
    predicted = figures["predicted"]
    # An interval that holds 1 shows nothing.
    shown = next((each["every"] for each in figures["time_ratio"] if each["high"] < 1), None)
    said = f"from k = {shown} on" if shown else "at no measured k"
    computed = f"k = {predicted}" if predicted else "no k, for a compiled turn is not faster"
    return (
        f"- **Time** per turn, recompiling over {way}: {ratios}. It is shown to be faster "
        f"{said}; compile time over time saved per turn gives {computed}."
    )


def _span(figures: dict[str, float]) -> str:
    if figures["low"] == figures["high"]:  # of one chat there is no interval
        return f"{figures['median']:.0f}"
    return f"{figures['median']:.0f} ({figures['low']:.0f} to {figures['high']:.0f})"


if __name__ == "__main__":
    typer.run(main)
