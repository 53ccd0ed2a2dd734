"""`python -m bench.results_page`: write docs/results.md from bench/results, and nothing else.

`--check` only compares; a test runs it, so that no number on the page can drift from its file.
"""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench.readme import load

MIN_ROUNDS: Final = 3
"""With fewer chats per cell an interval says nothing."""
PAGE: Final = Path(__file__).parents[1] / "docs" / "results.md"
WAYS: Final = {
    "prompt": "prompt and tools in context",
    "hybrid": "recipe of the prompt, tools in context",
    "recompile": "prompt and tools compiled at each change",
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
        "Accuracy, memory and serving are in the [README](../README.md#figures).",
        "",
    ]
    return "\n".join([*head, *dynamic(load("dynamic"))]) + "\n"


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
        f"Chats of {protocol['turns']} turns with the shipped checkpoint, in which "
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
