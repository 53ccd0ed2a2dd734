"""The summary has its eight figures with intervals; a full run measures only what is missing."""

from pathlib import Path
from typing import Any

import pytest
import typer

from bench.full import SECTIONS
from bench.full import main as full
from bench.full_page import full as full_section
from bench.serving_page import LABELS, table
from bench.summary import join

FIVE = (
    "gate_vs_bare_decode",
    "ceiling",
    "gate_flatness_1_to_max",
    "gate_vs_grouped_8",
    "gate_vs_grouped_64",
)


def figure(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median}


def joined(goodput_ratio: float) -> dict[str, Any]:
    decode = {
        "summary": dict.fromkeys(FIVE, 1.0),
        "summary_95": {name: [0.9, 1.1] for name in FIVE},
        "machine": {"cpus": 2},
        "engines": {"model": {"hidden": 1_024}, "protocol": {"batch": 64, "threads": 2}},
        "layers": {
            "shapes": [{"hidden": 1_024, "tokens": 64, "threads": 2, "over_grouped": {}}],
        },
    }
    gaps = {way: {"token_gap_seconds": 0.03} for way in ("prompt", "recipe")}
    tokens = {
        "warm_over_compiled": figure(1.5),
        "warm_over_compiled_by_place": [1.4, 1.6],
        "evicted_over_compiled": figure(30.0),
    }
    load = {"goodput_ratio": figure(goodput_ratio), "unloaded": gaps}
    return join(decode, {"lengths": [{}, tokens]}, load)


def test_the_summary_has_eight_figures_and_their_intervals() -> None:
    report = joined(3.0)
    assert report["intervals_95"].keys() == LABELS.keys()
    assert all(isinstance(report[name], float) for name in LABELS)
    assert (report["losses"], report["missed_targets"]) == ([], [])
    assert "**missed**" not in "".join(table(report))


def test_a_missed_target_stands_in_the_table() -> None:
    (row,) = (row for row in table(joined(1.5)) if "**missed**" in row)
    assert row.startswith("| goodput")
    assert "| 1.50 (1.35 to 1.65) |" in row


def test_a_full_run_measures_nothing_that_is_there(tmp_path: Path) -> None:
    for section in SECTIONS:
        (tmp_path / f"{section}.json").write_text("{}")
    full(tmp_path, only=None)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"{}"}


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="no section speed"):
        full(tmp_path, only=["decode", "speed"])


def test_the_page_has_no_section_of_what_was_not_measured(tmp_path: Path) -> None:
    assert full_section(tmp_path) == []
