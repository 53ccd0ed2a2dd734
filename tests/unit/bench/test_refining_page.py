"""The page says of refining what its file holds, and which family gains least by it."""

from typing import Any

from bench.accuracy_page import refining


def part(**shares: float) -> dict[str, Any]:
    mean = sum(shares.values()) / len(shares)
    return {
        "mean": mean,
        "ci95": [mean - 0.02, mean + 0.02],
        "of_full_prompt": mean / 0.8,
        "of_full_prompt_ci95": [mean / 0.8 - 0.02, mean / 0.8 + 0.02],
        "per_family": shares,
        "cpu_seconds_per_task": 2.5,
        "cpu_seconds_alone": [3.0, 4.25],
    }


def test_it_names_the_worst_family_of_those_that_the_prompt_decides() -> None:
    recipe = part(routes=0.4, json=0.9, shelves=0.5)
    del recipe["cpu_seconds_per_task"]
    bootstrap = {
        **part(routes=0.8),
        "columns": 64,
        "steps": 100,
        "rounds": 2,
        "tasks": 2,
        "full_prompt": 0.8,
    }
    page = refining(
        {
            "command": "evaluate-refine",
            "tasks": 3,
            "full_prompt": part(routes=0.8, json=1.0, shelves=0.0),
            "recipe": recipe,
            "refined": part(routes=0.8, json=0.9, shelves=0.0),
            "refined_from_zeros": part(routes=0.8, json=0.8, shelves=0.0),
            "bootstrap": {**bootstrap, "recipe_bytes": 1_060},
        }
    )
    rows = [line.split(" | ") for line in page if line.startswith(("| recipe", "| refined"))]
    assert [row[3] for row in rows] == ["routes 50%", "json 90%", "json 80%"]
    assert [row[4:] for row in rows[1:]] == [["2.5", "4.2 |"]] * 2
    assert "80.0% (78.0 to 82.0)" in " ".join(page)
    assert "rounds of 100 steps, 2 at most" in " ".join(page)
    assert "1,060 bytes" in " ".join(page)
