"""`python -m bench.plots`: draw docs/plots from bench/results."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.losses import engine_block
from bench.readme import load

PLOTS: Final = Path(__file__).parents[1] / "docs" / "plots"
CASES: Final = {"compiled": "recipe", "warm": "prompt, cached", "evicted": "prompt, evicted"}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the PNG files.")] = PLOTS,
) -> None:
    """Draw the plots of docs/results.md."""
    decode = load("decode")
    out.mkdir(parents=True, exist_ok=True)
    drawn = {
        "first_token": first_token(load("first_token")["lengths"]),
        "goodput": goodput(load("goodput")),
        "tasks": tasks(decode),
        "grouped": grouped(decode),
    }
    for name, figure in drawn.items():
        figure.savefig(out / f"{name}.png", dpi=100)


def first_token(lengths: list[dict[str, Any]]) -> Any:
    """Draw the time to the first token by length of the prompt."""
    figure, axes = _axes("time to first token (ms)", "tokens of the prompt")
    width = 0.8 / len(CASES)
    for index, (case, label) in enumerate(CASES.items()):
        at = [place + (index - 1) * width for place in range(len(lengths))]
        heights = [1_000 * each["median_seconds"][case] for each in lengths]
        bars = axes.bar(at, heights, width=width, label=label)
        axes.bar_label(bars, fmt="%.0f")
    axes.set_xticks(range(len(lengths)), [f"{each['prompt_tokens']:,}" for each in lengths])
    axes.set_yscale("log")
    axes.set_ylim(bottom=10)
    axes.margins(y=0.15)
    axes.legend(loc="upper left")
    return figure


def goodput(measured: dict[str, Any]) -> Any:
    """Draw how many requests are late at each rate that was tried."""
    figure, axes = _axes("requests known to be late (%)", "requests offered a second")
    for way, marker in (("prompt", "s"), ("recipe", "o")):
        trials = sorted(
            (trial for trial in measured["trials"] if trial["way"] == way),
            key=lambda trial: trial["rate"],
        )
        rates = [trial["rate"] for trial in trials]
        late = [100 * trial["missed"] / trial["requests"] for trial in trials]
        axes.plot(rates, late, marker=marker, label=f"{way}s")
    axes.axhline(5, color="grey", linestyle="--", label="5%, where a trial ends")
    _log_scale(axes)
    tried = sorted({trial["rate"] for trial in measured["trials"]})
    axes.set_xticks(tried, [f"{rate:.2g}" for rate in tried])
    axes.legend()
    return figure


def tasks(decode: dict[str, Any]) -> Any:
    """Draw the throughput over the bare engine's by number of tasks in rotation."""
    engines = decode["engines"]
    figure, axes = _axes("tokens over the bare engine's", "distinct tasks in rotation")
    ratios = {
        int(case): ratio for case, ratio in engines["wave_over_bare"].items() if case != "base"
    }
    _with_intervals(axes, ratios, "recipes")
    axes.axhline(engines["ceiling"]["median"], color="grey", linestyle="--", label="ceiling")
    _log_scale(axes)
    axes.set_ylim(0, 1.1)
    axes.legend()
    return figure


def grouped(decode: dict[str, Any]) -> Any:
    """Draw what adapters in groups take by number of tasks in a batch."""
    shape = engine_block(decode)
    figure, axes = _axes("time over that with recipes", "distinct tasks among 64 tokens")
    ratios = {int(case): ratio for case, ratio in shape["over_grouped"].items()}
    _with_intervals(axes, ratios, "adapters in groups, FFN block")
    axes.axhline(1, color="grey", linestyle="--", label="recipes")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ratios), [str(tasks) for tasks in ratios])
    axes.legend()
    return figure


def _with_intervals(axes: Any, ratios: dict[int, dict[str, float]], label: str) -> None:
    places = sorted(ratios)
    medians = [ratios[place]["median"] for place in places]
    below = [ratios[place]["median"] - ratios[place]["low"] for place in places]
    above = [ratios[place]["high"] - ratios[place]["median"] for place in places]
    axes.errorbar(places, medians, yerr=[below, above], marker="o", capsize=3, label=label)


def _log_scale(axes: Any) -> None:
    """Label a logarithmic axis with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _axes(what: str, by: str) -> tuple[Any, Any]:
    # Without pyplot, which keeps every figure and asks for a screen.
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel(what)
    axes.set_xlabel(by)
    return figure, axes


if __name__ == "__main__":
    typer.run(main)
