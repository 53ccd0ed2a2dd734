"""The section of docs/results.md on serving: where it loses first, then its figures and plots."""

import textwrap
from typing import Any, Final

from bench.arrivals import AZURE
from bench.losses import TARGETS

LABELS: Final = {
    "gate_vs_bare_decode": "tokens decoded by a batch of 64 tasks, over the bare engine's",
    "ceiling": "what arithmetic allows of that",
    "gate_flatness_1_to_max": "tokens with the most tasks in rotation, over those with one",
    "gate_vs_grouped_8": "FFN block, 8 tasks in 64 tokens: time of adapters in groups over recipes",
    "gate_vs_grouped_64": "the same, 64 tasks",
    "ttft_prompt_warm_over_compiled": "time to first token: 2,000-token prompt, in the prefix "
    "cache, over recipe",
    "ttft_prompt_evicted_over_compiled": "the same, the prompt dropped from the prefix cache",
    "goodput_ratio": "goodput under the fixed protocol: recipes over prompts",
}


def serving(summary: dict[str, Any], tokens: dict[str, Any], load: dict[str, Any]) -> list[str]:
    """Return the section."""
    model = load["model"]
    return [
        "## Serving",
        "",
        "Where it loses, worst first:",
        "",
        *(f"- {loss}" for loss in summary["losses"]),
        "",
        *_paragraph(
            "What `make bench` measures, by the commands below, joined by "
            f"`{summary['command']}` on {summary['date']}; {summary['machine']['cpus']} CPU cores "
            f"shared with other work. A random Llama of width {model['hidden']} and "
            f"{model['layers']} layers, a pool of {model['experts']} rank-one experts, bfloat16. "
            "CPU only: nothing here says "
            "how a GPU behaves."
        ),
        *table(summary),
        "",
        *_first_token(tokens),
        *_goodput(load),
        *_many_tasks(),
        *_paper(load["unloaded"]),
    ]


def table(summary: dict[str, Any]) -> list[str]:
    """Return the table of the eight figures."""
    rows = ["| | median (95% interval) | target |", "|---|---|---|"]
    for name, label in LABELS.items():
        low, high = summary["intervals_95"][name]
        target = TARGETS.get(name, "")
        missed = ", **missed**" if name in summary["missed_targets"] else ""
        rows.append(
            f"| {label} | {summary[name]:.2f} ({low:.2f} to {high:.2f}) | {target}{missed} |"
        )
    return rows


def _first_token(results: dict[str, Any]) -> list[str]:
    tokens = results["lengths"][-1]
    ms = {case: 1_000 * seconds for case, seconds in tokens["median_seconds"].items()}
    read = tokens["read_tokens"]
    return [
        *_paragraph(
            f"**First token** (`{results['command']}`, load {results['machine']['load'][1]:.0f}), "
            f"one request at a time, {tokens['pairs']} pairs: "
            f"{ms['compiled']:.0f} ms with a recipe that the worker has never seen "
            f"({read['compiled']:.0f} tokens read); {ms['warm']:.0f} ms with a prompt of "
            f"{tokens['prompt_tokens']:,} tokens in the prefix cache ({read['warm']:.0f} read, for "
            "vLLM computes anew what is behind the last full block of 128; the prompts end at "
            f"different places of a block); {ms['evicted']:.0f} ms with the prompt of one of more "
            f"tenants than the KV cache holds ({read['evicted']:.0f} read)."
        ),
        "![Time to the first token](plots/first_token.png)",
        "",
    ]


def _goodput(load: dict[str, Any]) -> list[str]:
    protocol, limits = load["protocol"], load["limits"]
    least, most = protocol["message_tokens"]
    rates = "; ".join(
        f"{way}s {'at no rate' if passed is None else f'{passed:.2f} a second'}, and no more at "
        f"{failed:.2f}"
        for way, (passed, failed) in load["rates"][-1].items()
    )
    return [
        *_paragraph(
            f"**Goodput** (`{load['command']}`, load {load['machine']['load'][1]:.0f}): "
            f"{protocol['tenants']} tenants drawn by Zipf's law (exponent "
            f"{protocol['zipf_exponent']:g}), prompts of {protocol['prompt_tokens']:,} tokens, KV "
            f"memory for {protocol['kv_prompts']} whole requests with one. "
            f"{_source(protocol['trace'])}, scaled to each rate; texts are random words. A message "
            f"is what the trace's context has beyond the prompt, between {least} and {most} "
            f"tokens; an answer ends after {protocol['answer_tokens']} at the latest. In time is a "
            f"first token within {limits['first_token_seconds']:.1f} s and "
            f"{1_000 * limits['token_gap_seconds']:.0f} ms a token on average, which is "
            f"{protocol['first_token_factor']} and {protocol['token_gap_factor']} times what an "
            "idle engine takes with a prompt that is not cached, for both ways the same. Seconds "
            "are CPU time of an engine in its own process, with one thread and without HTTP: "
            "waiting for a core does not count, a busy memory does. Every rate has the same "
            "requests, so that prompts may be cached from an earlier one, which favours them. The "
            f"highest rate at which {100 * protocol['share_in_time']:.0f}% of "
            f"{protocol['requests']} requests are in time: {rates}. Of one search the interval is "
            "what its two rates leave open."
        ),
        "![Requests that are late by offered rate](plots/goodput.png)",
        "",
    ]


def _source(trace: str) -> str:
    if trace == AZURE.name:
        return (
            "Arrivals and lengths are the Azure LLM inference trace's of 2023 (conversations, "
            "first 2,000 requests)"
        )
    return f"Arrivals and lengths are those of `{trace}`"


def _many_tasks() -> list[str]:
    return [
        "**Many tasks**: both engines in one process, step by step in turns; FFN blocks alone.",
        "",
        "![Tokens over the bare engine's by tasks in rotation](plots/tasks.png)",
        "![Adapters in groups by tasks in a batch](plots/grouped.png)",
        "",
    ]


def _paper(unloaded: dict[str, Any]) -> list[str]:
    prompt, recipe = (unloaded[way] for way in ("prompt", "recipe"))
    faster = prompt["request_seconds"] / recipe["request_seconds"]
    shorter = prompt["context_tokens"] / recipe["context_tokens"]
    return [
        "Beside the paper, whose figures are of trained models on a GPU and of its own tasks:",
        "",
        "| | paper | here |",
        "|---|---|---|",
        f"| a request is faster, times | 2.1 (TinyLlama-1.1B, reasoning) | {faster:.1f} (idle "
        "engine, 1,000-token prompt not cached, 16 tokens answered) |",
        f"| its context is shorter, times | 10.1 (Gemma-2B, tools) | {shorter:.1f} (1,000-token "
        "prompt, 16-token message) |",
        "",
    ]


def _paragraph(text: str) -> list[str]:
    return [*textwrap.wrap(text, 105, break_long_words=False, break_on_hyphens=False), ""]
