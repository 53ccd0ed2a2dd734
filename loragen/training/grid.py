"""Pool-bottleneck grid: does a narrow pool carry few kinds of rules as well as a wide one many?

A cell is a count of families and a pool width. Each trains a generator for the frozen edge model of
a checkpoint, and measures its recipes of one pass on prompts never trained on: those of its own
families (`own`), and those of the fewest families of the grid (`shared`), which all cells have.

    families   nested: fewer are the first of more
    width      rank-one experts, that is columns of the pool that gates mix
    start      nothing but the edge model: the cloud model is a copy of it, all else is new
    steps      as many in each cell, so that what differs within a row is the width alone

A cell that is done is kept in its folder; one that was stopped goes on.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from loragen.errors import ConfigError
from loragen.method.pool import edge_fingerprint
from loragen.recipe import Level
from loragen.suite.splits import Catalogue, Split
from loragen.suite.tenants import TENANTS
from loragen.training.checkpoint import Layout, train_generator
from loragen.training.curriculum import Phase
from loragen.training.evaluation import Evaluator, Figures
from loragen.training.generator_spec import GeneratorRunSpec

logger = logging.getLogger(__name__)

FAMILIES: Final = (
    *("format", "signoff", "pick", "json", "sentiment", "start"),
    *("end", "detect", "tag", "welcome", "twice", "extract"),
    *("persona", "urgency", "topic", "reverse", "join", "list"),
    *("count", "redact", "rename", "facts", "handoff", "closing"),
)
"""Seen families of the tenants catalogue without tables, frames and choices between two phrases,
whose bindings text alone does not teach. Kinds are mixed, so that each start holds several."""

_SYSTEMS: Final = ("full_prompt", "recipe", "same_family_other_recipe", "none")


@dataclass(frozen=True, slots=True)
class CellSpec:
    """What all cells of a grid have in common."""

    steps: int = 400
    rows: int = 24
    segments: int = 2
    """Small steps of short prompts: nine cells share an hour of one core."""
    tasks: int = 144
    """Unseen prompts of each measurement, at least."""
    seed: int = 0

    def generator(self, families: int, width: int) -> GeneratorRunSpec:
        """Return what a cell trains."""
        flat = self.steps // 2
        return GeneratorRunSpec(
            Level.DENSE,
            experts=width,
            rank=1,
            phases=(
                Phase("rules", 0, flat, text_share=1.0),
                Phase("cooldown", 0, self.steps - flat, text_share=1.0, decays=True),
            ),
            catalogue=catalogue(families),
            rows=self.rows,
            segments=self.segments,
            binds=True,
            matrix_decay=0.1,
        )


def catalogue(families: int) -> Catalogue:
    """Return the first families of the grid, with their rules alone as prompts."""
    if not 2 <= families <= len(FAMILIES):
        raise ConfigError(f"a grid has 2 to {len(FAMILIES)} families, not {families}")
    by_name = {family.name: family for family in TENANTS.seen}
    return replace(
        TENANTS,
        name=f"grid-{families}",
        seen=tuple(by_name[name] for name in FAMILIES[:families]),
        unseen=(),
        surround=_alone,
        binding=(),
        weights={},
    )


def _alone(rule: str, rng: Random) -> str:
    return rule


class Grid:
    """Cells below a folder, for the edge model of one checkpoint."""

    def __init__(self, checkpoint: Path, work: Path, spec: CellSpec) -> None:
        """Take up a folder, or begin it.

        Raises:
            ConfigError: its cells are of another edge model or of other settings.
        """
        self._source, self._work, self._spec = Layout(checkpoint.resolve()), work, spec
        settings = json.dumps({"edge": edge_fingerprint(self._source.edge), **asdict(spec)}) + "\n"
        record = work / "settings.json"
        work.mkdir(parents=True, exist_ok=True)
        if record.exists() and record.read_text("utf-8") != settings:
            raise ConfigError(f"{work} is of another edge model or settings: use another folder")
        record.write_text(settings, "utf-8")

    def figures(
        self, families: Sequence[int], widths: Sequence[int], *, seconds: float
    ) -> list[Figures]:
        """Train and measure each cell, but for those that are done, and return them.

        A cell that needs more than `seconds` of training is left for the next call.
        """
        done = []
        for count in families:
            for width in widths:
                cell = self._cell(count, width, min(families), seconds)
                if cell is not None:
                    done.append(cell)
        return done

    def _cell(self, families: int, width: int, shared: int, seconds: float) -> Figures | None:
        folder = self._work / f"{families}x{width}"
        record = folder / f"figures_{shared}.json"
        if record.exists():
            logger.info("grid %s: done before", folder.name)
        else:
            logger.info("grid %s", folder.name)
            layout = self._layout(folder)
            spec = self._spec.generator(families, width)
            if not train_generator(layout, spec, self._spec.seed, seconds=seconds):
                logger.info("grid %s: time is up; run again to go on", folder.name)
                return None
            own = self._measure(layout, families)
            figures = {
                "families": families,
                "width": width,
                "own": own,
                "shared": own if families == shared else self._measure(layout, shared),
            }
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(figures) + "\n", "utf-8")
            partial.replace(record)
        cell: Figures = json.loads(record.read_text("utf-8"))
        return cell

    def _layout(self, folder: Path) -> Layout:
        """Return a cell's folder, which holds the checkpoint's edge model and control."""
        layout = Layout(folder)
        folder.mkdir(exist_ok=True)
        for link, target in (
            (layout.edge, self._source.edge),
            (layout.multitask, self._source.multitask),
        ):
            if not link.exists():
                link.symlink_to(target)
        return layout

    def _measure(self, layout: Layout, families: int) -> Figures:
        """Return what the systems reach on unseen prompts of the first families."""
        asked = catalogue(families)
        split = Split.UNSEEN_PROMPTS
        evaluator = Evaluator(layout, Level.DENSE, asked)
        figures = evaluator.score(split, asked.prompts_per_family(split, self._spec.tasks))
        whole = figures["others"]  # no family of the grid has a table
        return {
            **{system: whole[system] for system in _SYSTEMS},
            "ci95": {system: figures["ci95"][system] for system in _SYSTEMS},
            **{key: whole[key] for key in ("recipe_of_full_prompt", "recipe_of_full_prompt_ci95")},
            "prompts": whole["prompts"],
            "recipe_per_family": {
                name: row["recipe"] for name, row in figures["per_family"].items()
            },
        }
