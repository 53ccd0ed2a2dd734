"""The page says of a grid what its intervals allow, and what is missing."""

from typing import Any

import pytest

from bench.grid_page import grid


def cell(families: int, width: int, share: float) -> dict[str, Any]:
    figures = {
        "full_prompt": 1.0,
        "recipe": share,
        "same_family_other_recipe": 0.02,
        "none": 0.0,
        "recipe_of_full_prompt": share,
        "recipe_of_full_prompt_ci95": [share - 0.05, share + 0.05],
        "prompts": 144,
    }
    return {"families": families, "width": width, "own": figures, "shared": figures}


def page(*cells: dict[str, Any]) -> str:
    settings = {"steps": 300, "rows": 24, "segments": 2, "seed": 0}
    results = {"command": "grid", "edge_fingerprint": "ab" * 32, "settings": settings}
    return "\n".join(grid({**results, "cells": list(cells)}))


@pytest.mark.parametrize(
    ("narrow", "wide", "said"),
    [
        (0.5, 0.9, "a narrow pool carries less"),
        (0.9, 0.5, "a wide pool carries less"),
        (0.85, 0.9, "no difference is shown"),
    ],
)
def test_a_difference_is_claimed_only_where_intervals_do_not_meet(
    narrow: float, wide: float, said: str
) -> None:
    assert said in page(cell(6, 128, wide), cell(6, 16, narrow))


def test_cells_stand_by_families_and_width_and_missing_ones_are_said() -> None:
    lines = page(cell(24, 128, 0.7), cell(6, 16, 0.9)).splitlines()
    assert "| families | 16 experts | 128 experts |" in lines
    assert "| 6 | 90.0% (85.0 to 95.0) [90.0%] | not measured |" in lines
    assert "| 24 | not measured | 70.0% (65.0 to 75.0) [70.0%] |" in lines
