"""What is lost is said: every missed target, and every case in which something else is faster."""

from typing import Any

import pytest

from bench.losses import TARGETS, losses, missed_targets
from bench.serving_page import LABELS

GOOD = {
    "gate_vs_bare_decode": 0.9,
    "ceiling": 0.92,
    "gate_flatness_1_to_max": 0.99,
    "gate_vs_grouped_8": 1.2,
    "gate_vs_grouped_64": 3.0,
    "ttft_prompt_warm_over_compiled": 1.5,
    "ttft_prompt_evicted_over_compiled": 20.0,
    "goodput_ratio": 3.0,
}


def decode(**over_grouped: float) -> dict[str, Any]:
    ratios = {tasks.strip("_"): {"median": median} for tasks, median in over_grouped.items()}
    shape = {"hidden": 1_024, "tokens": 64, "threads": 2, "over_grouped": ratios}
    return {
        "machine": {"cpus": 2},
        "engines": {"model": {"hidden": 1_024}, "protocol": {"batch": 64, "threads": 2}},
        "layers": {"shapes": [shape, {**shape, "threads": 1}]},
    }


def goodput(prompt: float, recipe: float) -> dict[str, Any]:
    gaps = {"prompt": prompt, "recipe": recipe}
    return {"unloaded": {way: {"token_gap_seconds": gap} for way, gap in gaps.items()}}


def first_token(*by_place: float) -> dict[str, Any]:
    return {"warm_over_compiled_by_place": list(by_place)}


def test_every_figure_has_a_label_and_all_but_the_ceiling_a_target() -> None:
    assert LABELS.keys() == GOOD.keys()
    assert TARGETS.keys() == GOOD.keys() - {"ceiling"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gate_vs_bare_decode", 0.87),
        ("gate_flatness_1_to_max", 0.96),
        ("gate_flatness_1_to_max", 1.04),
        ("gate_vs_grouped_8", 0.99),
        ("gate_vs_grouped_64", 0.99),
        ("ttft_prompt_warm_over_compiled", 1.39),
        ("ttft_prompt_evicted_over_compiled", 9.9),
        ("goodput_ratio", 1.9),
    ],
)
def test_a_missed_target_is_said_first(name: str, value: float) -> None:
    assert missed_targets(GOOD) == []
    figures = {**GOOD, name: value}
    assert missed_targets(figures) == [name]
    first = losses(figures, decode(_8=1.2), first_token(1.4, 1.6), goodput(0.04, 0.03))[0]
    assert first == f"Target missed: `{name}` is {value:.3g}, not {TARGETS[name]}."


def test_what_is_slower_is_said_worst_first() -> None:
    said = losses(GOOD, decode(_1=0.7, _4=0.95, _8=1.2), first_token(1.2, 3.5), goodput(0.04, 0.05))
    assert [" ".join(sentence.split()[:6]) for sentence in said] == [
        "With 1 distinct task among 64",
        "On an idle engine a token",
        "A batch of 64 tasks decodes",
        "With 4 distinct tasks among 64",
        "A cached prompt that ends with",
    ]


def test_nothing_is_said_of_what_is_not_slower() -> None:
    figures = {**GOOD, "gate_vs_bare_decode": 1.0}
    assert losses(figures, decode(_1=1.0), first_token(1.4, 1.6), goodput(0.05, 0.04)) == []
