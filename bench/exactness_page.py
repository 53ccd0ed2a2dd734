"""The section of docs/results.md on requests held to merged weights."""

from typing import Any


def differential(results: dict[str, Any]) -> list[str]:
    """Return the section on requests held to merged weights."""
    return [
        "## Exactness",
        "",
        f"`{results['command']}`",
        "",
        "Random requests to real workers, each answer held to the model of Hugging Face with the "
        "recipe's",
        f"adapter in its weights: {results['requests']:,} requests, {results['tokens']:,} tokens, "
        f"{results['mismatches']} that differ; of {results['logprobs']:,}",
        f"log-probabilities the largest difference is {results['largest_logprob_error']:.0e}. "
        f"{results['misled']} requests were sent with another",
        f"recipe than the judge was told, and {results['misled_found']} were found out. Not run: "
        f"{results['not_run'].removeprefix('no GPU: ')} (no GPU).",
        "",
        "| engine | requests | differ | preempted | tokens from the prefix cache | hung up | "
        "prompts in pieces |",
        "|---|---|---|---|---|---|---|",
        *(_engine_row(name, engine) for name, engine in results["engines"].items()),
        "",
    ]


def _engine_row(name: str, engine: dict[str, Any]) -> str:
    counted = ("preemptions", "cached_tokens", "aborts", "chunked_prompts")
    happened = [engine["happened"][event] for event in counted]
    cells = [name, f"{engine['requests']:,}", engine["mismatches"], *happened]
    return f"| {' | '.join(map(str, cells))} |"
