"""Where serving with recipes loses, worst first, in sentences with their figures."""

from typing import Any, Final

TARGETS: Final = {
    "gate_vs_bare_decode": "95% of the ceiling",
    "gate_flatness_1_to_max": "within 3% of 1",
    "gate_vs_grouped_8": "at least 1",
    "gate_vs_grouped_64": "at least 1",
    "ttft_prompt_warm_over_compiled": "at least 1.4",
    "ttft_prompt_evicted_over_compiled": "at least 10",
    "goodput_ratio": "at least 2",
}
_LEAST: Final = {
    "gate_vs_grouped_8": 1.0,
    "gate_vs_grouped_64": 1.0,
    "ttft_prompt_warm_over_compiled": 1.4,
    "ttft_prompt_evicted_over_compiled": 10.0,
    "goodput_ratio": 2.0,
}


def missed_targets(figures: dict[str, float]) -> list[str]:
    """Return the names of the figures that are not what they should be."""
    missed = [name for name, least in _LEAST.items() if figures[name] < least]
    if figures["gate_vs_bare_decode"] < 0.95 * figures["ceiling"]:
        missed.insert(0, "gate_vs_bare_decode")
    if abs(figures["gate_flatness_1_to_max"] - 1) > 0.03:
        missed.append("gate_flatness_1_to_max")
    return missed


def losses(
    figures: dict[str, float], decode: dict[str, Any], tokens: dict[str, Any], load: dict[str, Any]
) -> list[str]:
    """Return the sentences, of missed targets first."""
    said = [
        f"Target missed: `{name}` is {figures[name]:.3g}, not {TARGETS[name]}."
        for name in missed_targets(figures)
    ]
    costs = [*_decode(figures), *_grouped(decode), *_warm(tokens), *_tokens(load)]
    return said + [sentence for _, sentence in sorted(costs)]


def _decode(figures: dict[str, float]) -> list[tuple[float, str]]:
    share, ceiling = figures["gate_vs_bare_decode"], figures["ceiling"]
    if share >= 1:
        return []
    return [
        (
            share,
            f"A batch of 64 tasks decodes {100 * share:.0f}% of the tokens that the bare engine "
            f"decodes without any; arithmetic allows {100 * ceiling:.0f}%.",
        )
    ]


def _grouped(decode: dict[str, Any]) -> list[tuple[float, str]]:
    """Return how much faster adapters in groups are where few tasks share a batch."""
    shape = engine_block(decode)
    return [
        (
            ratio["median"],
            f"With {tasks} distinct {'task' if tasks == '1' else 'tasks'} among 64 tokens an FFN "
            f"block with adapters in groups takes {100 * ratio['median']:.0f}% of its time with "
            "recipes.",
        )
        for tasks, ratio in shape["over_grouped"].items()
        if ratio["median"] < 1
    ]


def engine_block(decode: dict[str, Any]) -> dict[str, Any]:
    """Return the measured FFN block that is like those of the measured engine."""
    model, protocol = (decode["engines"][name] for name in ("model", "protocol"))
    like = {
        "hidden": model["hidden"],
        "tokens": protocol["batch"],
        "threads": protocol["threads"],
    }
    (block,) = (each for each in decode["layers"]["shapes"] if like.items() <= each.items())
    found: dict[str, Any] = block
    return found


def _warm(tokens: dict[str, Any]) -> list[tuple[float, str]]:
    """Return that the gain over a warm prefix cache depends on where its last block ends."""
    lowest, *_, highest = tokens["warm_over_compiled_by_place"]
    if lowest >= _LEAST["ttft_prompt_warm_over_compiled"]:
        return []
    return [
        (
            lowest,
            f"A cached prompt that ends with a block of the KV cache has its first token after "
            f"{lowest:.1f} times the time of a recipe, not after {highest:.1f} as one that leaves "
            "most of a block to be read again.",
        )
    ]


def _tokens(load: dict[str, Any]) -> list[tuple[float, str]]:
    prompt, recipe = (load["unloaded"][way]["token_gap_seconds"] for way in ("prompt", "recipe"))
    if prompt >= recipe:
        return []
    return [
        (
            prompt / recipe,
            f"On an idle engine a token takes {1_000 * recipe:.0f} ms with a recipe and "
            f"{1_000 * prompt:.0f} ms with a prompt of 1,000 tokens in the KV cache.",
        )
    ]
