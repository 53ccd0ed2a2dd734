"""A grid holds one more variable per axis and nothing else; done cells are not done again."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from loragen.errors import ConfigError
from loragen.method.pool import Pool, edge_fingerprint
from loragen.suite.splits import Split
from loragen.suite.tenants import FRAMED, LOOKUPS
from loragen.training import grid
from loragen.training.__main__ import app
from loragen.training.checkpoint import Layout, train_generator
from loragen.training.grid import FAMILIES, CellSpec, Grid, catalogue

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "small"
TINY = CellSpec(steps=2, rows=2, segments=1, tasks=4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two threads on busy cores wait for one another in a loop, at every product."""
    torch.set_num_threads(1)


def test_families_are_nested_and_hold_no_tables() -> None:
    tables = {family.name for family in (*LOOKUPS, *FRAMED)}
    assert len(set(FAMILIES)) == 24
    assert not tables & set(FAMILIES)
    names = [[family.name for family in catalogue(count).seen] for count in (6, 12, 24)]
    assert names == [list(FAMILIES[:count]) for count in (6, 12, 24)]
    for count in (1, 25):
        with pytest.raises(ConfigError):
            catalogue(count)


def test_cells_are_asked_the_same_prompts_and_these_are_rules_alone() -> None:
    few, many = catalogue(2), catalogue(24)
    for family in few.seen:
        one, other = (c.draw(family, Split.UNSEEN_PROMPTS, 3) for c in (few, many))
        assert one.text == one.rule == other.text
    assert many.surround("", Random(0)) == ""
    assert set(many.weighted(many.seen)) == set(many.seen)


def test_done_cells_are_kept_and_stopped_ones_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(layout: Layout, *args: Any, **named: Any) -> bool:
        trained.append(layout.root.name)
        return train_generator(layout, *args, **named)

    monkeypatch.setattr(grid, "train_generator", train)
    work = tmp_path / "work"
    assert Grid(CHECKPOINT, work, TINY).figures([2], [2], seconds=0) == []
    first = Grid(CHECKPOINT, work, TINY).figures([2], [2], seconds=60)
    assert trained == ["2x2", "2x2"]
    both = Grid(CHECKPOINT, work, TINY).figures([2], [2, 3], seconds=60)
    assert trained == ["2x2", "2x2", "2x3"]
    assert both[:1] == first
    assert [(cell["families"], cell["width"]) for cell in both] == [(2, 2), (2, 3)]
    with pytest.raises(ConfigError, match="another edge model or settings"):
        Grid(CHECKPOINT, work, replace(TINY, steps=3))


def test_a_cell_has_a_pool_of_its_width_for_the_checkpoints_edge_model(tmp_path: Path) -> None:
    Grid(CHECKPOINT, tmp_path, TINY).figures([2], [3], seconds=0)
    pool = Pool.load(tmp_path / "2x3" / "generator" / "pool.safetensors")
    assert pool.spec.columns == 3
    assert pool.spec.edge_fingerprint == edge_fingerprint(CHECKPOINT / "edge")


def test_the_result_file_says_how_and_what(tmp_path: Path) -> None:
    out = tmp_path / "grid.json"
    options = f"--checkpoint {CHECKPOINT} --out {out} --work {tmp_path / 'work'} --steps 2"
    cells = "--tasks 4 --families 2 --families 3 --widths 2"
    result = CliRunner().invoke(app, ["grid", *options.split(), *cells.split()])
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text("utf-8"))
    assert results["families"] == list(FAMILIES[:3])
    assert results["settings"]["steps"] == 2
    for cell, families in zip(results["cells"], (2, 3), strict=True):
        assert (cell["families"], cell["width"]) == (families, 2)
        for part, asked in (("own", families), ("shared", 2)):
            figures = cell[part]
            assert figures["prompts"] >= 4
            assert list(figures["recipe_per_family"]) == list(FAMILIES[:asked])
            for system in ("full_prompt", "recipe", "same_family_other_recipe", "none"):
                low, high = figures["ci95"][system]
                assert 0 <= low <= figures[system] <= high <= 1
            assert len(figures["recipe_of_full_prompt_ci95"]) == 2
    assert results["cells"][0]["own"] == results["cells"][0]["shared"]
