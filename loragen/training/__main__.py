"""Command line: `python -m loragen.training demo|small|evaluate|…`."""

import json
import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import torch
import typer

from loragen.method.refine import BOOTSTRAP_LR, RefineSpec
from loragen.suite.catalogues import CATALOGUES, CatalogueName
from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from loragen.suite.tenants import TENANTS
from loragen.training.checkpoint import (
    Layout,
    train_control,
    train_edge,
    train_generator,
    train_pairs,
)
from loragen.training.edge_evaluation import EdgeEvaluator
from loragen.training.edge_run import EdgeRun, RunSpec
from loragen.training.evaluation import evaluate
from loragen.training.gated import DEMO_GATE, SMALL_GATE
from loragen.training.generator_spec import (
    DENSE,
    PAPER,
    TENANTS_DENSE,
    TENANTS_TOGETHER,
    GeneratorRunSpec,
)
from loragen.training.grid_command import grid_command
from loragen.training.pair_course import PairSpec
from loragen.training.pretrain import EdgeSize, EdgeSpec
from loragen.training.progress import log_progress
from loragen.training.refine_evaluation import BootstrapSpec, evaluate_refine
from loragen.training.showcase import DEMO_SHOW, SMALL_SHOW, write_card, write_prompts
from loragen.training.stages import run_stages

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
app.command(name="grid")(grid_command)
logger = logging.getLogger(__name__)


class Stage(StrEnum):
    """Parts of the small checkpoint, in order; each reads what earlier ones wrote."""

    EDGE = "edge"
    GENERATOR = "generator"
    GENERATOR_L0 = "generator-l0"
    CONTROL = "control"
    PROMPTS = "prompts"


GATES: Final = {CatalogueName.SMALL: SMALL_GATE, CatalogueName.TENANTS: DEMO_GATE}
"""What the checkpoints of these suites are served by."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run; goes on from what is there.")],
    seed: Annotated[int, typer.Option(help="Seed of data, weights and tokenizer.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train the demo's checkpoint from scratch, in hours; run again to go on after a stop."""
    torch.set_num_threads(threads)
    layout = Layout(out)
    run_stages(
        out,
        seed,
        {
            "edge": lambda: EdgeRun(out, RunSpec(TENANTS), seed).train(),
            "generator": lambda: train_generator(layout, TENANTS_DENSE, seed),
            "pairs": lambda: train_pairs(layout, PairSpec(TENANTS), seed),
            "together": lambda: train_generator(layout, TENANTS_TOGETHER, seed),
            "control": lambda: train_control(layout, TENANTS, seed),
            "prompts": lambda: write_prompts(layout, DEMO_SHOW),
        },
    )


@app.command()
def small(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="Seed of data, weights and tokenizer.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    stage: Annotated[
        list[Stage] | None,
        typer.Option(help="Train only this part, on top of the rest; repeatable."),
    ] = None,
) -> None:
    """Train the small checkpoint from scratch: no download, 21 minutes on two cores."""
    torch.set_num_threads(threads)
    layout = Layout(out)
    stages = set(stage or Stage)
    actions: dict[Stage, Callable[[], object]] = {
        Stage.EDGE: lambda: train_edge(layout, EdgeSpec(), seed),
        Stage.GENERATOR: lambda: _train_anew(layout, DENSE, seed),
        Stage.GENERATOR_L0: lambda: _train_anew(layout, PAPER, seed),
        Stage.CONTROL: lambda: train_control(layout, SMALL, seed),
        Stage.PROMPTS: lambda: write_prompts(layout, SMALL_SHOW),
    }
    for name, act in actions.items():
        if name in stages:
            logger.info("stage %s", name)
            act()
    write_card(layout, seed)


def _train_anew(layout: Layout, spec: GeneratorRunSpec, seed: int) -> None:
    """Train a generator whatever is there, but for a run that was stopped, which goes on."""
    train_generator(layout, spec, seed)
    layout.position(spec.level).unlink()  # or the same again would have nothing to do


@app.command(name="edge")
def edge_command(
    out: Annotated[Path, typer.Option(help="Folder of the run; goes on from its checkpoint.")],
    minutes: Annotated[float, typer.Option(help="Stop after this time, with a checkpoint.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of data, weights and tokenizer.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    hidden: Annotated[int, typer.Option(help="Width of the model.")] = 128,
    layers: Annotated[int, typer.Option(help="Layers of the model.")] = 4,
    rows: Annotated[int, typer.Option(help="Prompts of one step.")] = 32,
) -> None:
    """Train an edge model that follows the tenants catalogue, tables included; resumable."""
    torch.set_num_threads(threads)
    size = EdgeSize(hidden=hidden, layers=layers, heads=hidden // 32, intermediate=3 * hidden)
    run = EdgeRun(out, RunSpec(TENANTS, size, rows=rows), seed)
    is_over = run.train(seconds=60 * minutes)
    logger.info("edge: %s", "done" if is_over else "time is up; run again to go on")


@app.command(name="generator")
def generator_command(
    out: Annotated[Path, typer.Option(help="Checkpoint folder that holds `edge/`.")],
    minutes: Annotated[float, typer.Option(help="Stop after this time, with a checkpoint.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train a generator on the tenants catalogue for an edge model; resumable."""
    torch.set_num_threads(threads)
    is_over = train_generator(Layout(out), TENANTS_DENSE, seed, seconds=60 * minutes)
    logger.info("generator: %s", "done" if is_over else "time is up; run again to go on")


@app.command(name="pairs")
def pairs_command(
    out: Annotated[Path, typer.Option(help="Checkpoint folder that holds `generator/`.")],
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Teach a generator of the tenants catalogue whose value is whose; resumable."""
    torch.set_num_threads(threads)
    train_pairs(Layout(out), PairSpec(TENANTS), seed)


@app.command(name="together")
def together_command(
    out: Annotated[Path, typer.Option(help="Checkpoint folder after `pairs`.")],
    minutes: Annotated[float, typer.Option(help="Stop after this time, with a checkpoint.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of data.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train all parts of a generator together that has been through the pair course; resumable."""
    torch.set_num_threads(threads)
    is_over = train_generator(Layout(out), TENANTS_TOGETHER, seed, seconds=60 * minutes)
    logger.info("generator: %s", "done" if is_over else "time is up; run again to go on")


@app.command(name="control")
def control_command(
    out: Annotated[Path, typer.Option(help="Checkpoint folder that holds `edge/`.")],
    catalogue: Annotated[CatalogueName, typer.Option(help="Suite.")] = CatalogueName.TENANTS,
    seed: Annotated[int, typer.Option(help="Seed of data and weights.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train the control of evaluations: one LoRA for all prompts."""
    torch.set_num_threads(threads)
    train_control(Layout(out), CATALOGUES[catalogue], seed)


@app.command(name="evaluate-edge")
def evaluate_edge_command(
    edge: Annotated[Path, typer.Option(help="Folder of the edge model.")],
    prompts: Annotated[int, typer.Option(help="Prompts per family and split.")] = 32,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    *,
    short: Annotated[bool, typer.Option(help="Ask with the rules alone as prompts.")] = False,
) -> None:
    """Print how often an edge model follows the tenants catalogue with the prompt in context."""
    torch.set_num_threads(threads)
    evaluator = EdgeEvaluator(edge, TENANTS)
    splits = (Split.UNSEEN_PROMPTS, Split.UNSEEN_WORDINGS, Split.UNSEEN_FAMILIES)
    figures = {str(split): evaluator.score(split, prompts, short=short) for split in splits}
    typer.echo(json.dumps(figures, indent=1))


@app.command(name="evaluate-refine")
def evaluate_refine_command(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    prompts: Annotated[int, typer.Option(help="Prompts per family.", min=1)] = 2,
    probes: Annotated[int, typer.Option(help="Probes per prompt.", min=1)] = 48,
    steps: Annotated[int, typer.Option(help="Steps of one round of fitting.", min=1)] = 100,
    rounds: Annotated[int, typer.Option(help="Rounds of fitting at most.", min=1)] = 2,
    columns: Annotated[int, typer.Option(help="Directions of a bootstrap pool.", min=1)] = 128,
    bootstrap_steps: Annotated[
        int, typer.Option(help="Steps of a round on a bootstrap pool.", min=1)
    ] = 100,
    bootstrap_lr: Annotated[
        float, typer.Option(help="Rate of fitting on a bootstrap pool.", min=0.0)
    ] = BOOTSTRAP_LR,
    catalogue: Annotated[CatalogueName, typer.Option(help="Suite to ask.")] = CatalogueName.TENANTS,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Measure what fitting single tasks' gates brings, from each start, and how long it takes."""
    torch.set_num_threads(threads)
    bootstrap = BootstrapSpec(columns=columns, steps=bootstrap_steps, lr=bootstrap_lr)
    figures = evaluate_refine(
        Layout(checkpoint),
        CATALOGUES[catalogue],
        RefineSpec(steps=steps, rounds=rounds),
        bootstrap,
        prompts=prompts,
        probes=probes,
    )
    figures["command"] = (
        f"python -m loragen.training evaluate-refine --checkpoint {checkpoint} --out {out} "
        f"--prompts {prompts} --probes {probes} --steps {steps} --rounds {rounds} "
        f"--columns {columns} --bootstrap-steps {bootstrap_steps} --bootstrap-lr {bootstrap_lr} "
        f"--catalogue {catalogue}"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


@app.command(name="evaluate")
def evaluate_command(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    catalogue: Annotated[CatalogueName, typer.Option(help="Suite to ask.")] = CatalogueName.TENANTS,
    tasks: Annotated[int, typer.Option(help="Tasks per split, at least.", min=2)] = 500,
    gated: Annotated[
        int, typer.Option(help="Tasks per split that are measured and refined too.", min=0)
    ] = 500,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    processes: Annotated[
        int, typer.Option(help="Processes that measure and refine, on a core each.", min=1)
    ] = 2,
) -> None:
    """Measure recipes against the full prompt and the controls, on prompts never trained on."""
    torch.set_num_threads(threads)
    figures = evaluate(checkpoint, catalogue, tasks, gated, GATES[catalogue], processes=processes)
    figures["command"] = (
        f"python -m loragen.training evaluate --checkpoint {checkpoint} --out {out} "
        f"--catalogue {catalogue} --tasks {tasks} --gated {gated}"
    )
    figures["measure"] = (
        "share of questions answered exactly (greedy, every token and the end); ci95 is a "
        "bootstrap interval over tasks"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for split, row in figures.get("gate", {}).items():
        logger.info(
            "gate %s: served %.1f %%, refined %.1f %%, prompt %.1f %%; %s",
            *(split, 100 * row["served"], 100 * row["refined"], 100 * row["full_prompt"]),
            row["ways"],
        )
    for key in ("shipped", "L0"):
        for split, row in figures.get(key, {}).items():
            logger.info(
                "%s %s: prompt %.1f %%, recipe %.1f %%, none %.1f %%",
                *(key, split, 100 * row["full_prompt"], 100 * row["recipe"], 100 * row["none"]),
            )


def main() -> None:
    """Run the command line, with progress on stderr."""
    log_progress()
    app()


if __name__ == "__main__":
    main()
