"""`python -m loragen.training grid`: the options of the grid, and its result file."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from loragen.method.pool import edge_fingerprint
from loragen.training.checkpoint import Layout
from loragen.training.grid import FAMILIES, CellSpec, Grid

logger = logging.getLogger(__name__)

_FAMILIES = [6, 12, 24]
_WIDTHS = [16, 64, 128]


def grid_command(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    work: Annotated[Path, typer.Option(help="Folder of the cells; goes on from it.")] = Path(
        "runs/grid"
    ),
    families: Annotated[
        list[int],
        typer.Option(help="Families of a row; repeatable.", min=2, max=len(FAMILIES)),
    ] = _FAMILIES,
    widths: Annotated[
        list[int], typer.Option(help="Experts of a column; repeatable.", min=1)
    ] = _WIDTHS,
    steps: Annotated[int, typer.Option(help="Steps of each cell.", min=2)] = CellSpec().steps,
    tasks: Annotated[
        int, typer.Option(help="Unseen prompts of each measurement, at least.", min=2)
    ] = CellSpec().tasks,
    minutes: Annotated[
        float, typer.Option(help="A cell that trains for longer is left for the next run.")
    ] = 60,
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Measure how accurate recipes are by families and width of the pool; resumable."""
    torch.set_num_threads(threads)
    spec = CellSpec(steps=steps, tasks=tasks, seed=seed)
    cells = Grid(checkpoint, work, spec).figures(families, widths, seconds=60 * minutes)
    options = " ".join(
        [f"--families {count}" for count in families] + [f"--widths {width}" for width in widths]
    )
    results = {
        "command": f"python -m loragen.training grid --checkpoint {checkpoint} --out {out} "
        f"{options} --steps {steps} --tasks {tasks} --seed {seed}",
        "measure": "share of questions to unseen prompts answered exactly (greedy, every token and "
        "the end); ci95 is a bootstrap interval over prompts",
        "start": "the cloud model is a copy of the edge model, the rest of the generator is new",
        "edge_fingerprint": edge_fingerprint(Layout(checkpoint).edge),
        "settings": asdict(spec),
        "families": FAMILIES[: max(families)],
        "cells": cells,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for cell in cells:
        logger.info(
            "%d families, %d experts: recipe %.1f %% of %.1f %%, shared %.1f %% of %.1f %%",
            *(cell["families"], cell["width"]),
            *(100 * cell["own"][system] for system in ("recipe", "full_prompt")),
            *(100 * cell["shared"][system] for system in ("recipe", "full_prompt")),
        )
