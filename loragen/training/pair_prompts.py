"""Pair prompts: training prompts by whether they hold a table, other pairs, or none."""

from collections.abc import Sequence
from random import Random
from typing import Final

from loragen.errors import ConfigError
from loragen.suite.pairs import pairs_of
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.training.batches import Batch, Renderer, Row

ROWS: Final = 32
_PROMPTS: Final = 20_000
"""Training prompts per family."""
_SEGMENTS: Final = 6


class PairPrompts:
    """Draws prompts of a catalogue and asks them.

    A share of the tables is of the hard families, whatever else is drawn; of the rest every family
    is as frequent as another.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        renderer: Renderer,
        hard: Sequence[str] = (),
        hard_share: float = 0.0,
    ) -> None:
        """Take a catalogue and the names of its hard families.

        Raises:
            ConfigError: the catalogue has no such family, or its prompts have no tables.
        """
        self._catalogue = catalogue
        self._renderer = renderer
        self._hard = [family for family in catalogue.seen if family.name in hard]
        firsts = [catalogue.draw(family, Split.TRAIN, 0) for family in self._hard]
        if len(firsts) < len(hard) or not all("table" in first.values for first in firsts):
            raise ConfigError(f"not all of {', '.join(hard)} are families with tables")
        self._hard_share = hard_share

    def draw(self, rng: Random, *, tables: float, pairs: float) -> list[Prompt]:
        """Draw prompts: a share with tables, up to `pairs` with any pairs, the rest without."""
        return [self._draw_one(rng, tables=tables, pairs=pairs) for _ in range(ROWS)]

    def ask(self, prompts: list[Prompt], rng: Random, *, short: bool) -> Batch:
        """Return prompts, or their rules alone, with fresh questions."""
        rows = [
            Row(
                prompt.rule if short else prompt.text,
                tuple((prompt.ask(rng),) for _ in range(_SEGMENTS)),
            )
            for prompt in prompts
        ]
        return self._renderer.batch(rows, [[False] * _SEGMENTS] * len(rows))

    def _draw_one(self, rng: Random, *, tables: float, pairs: float) -> Prompt:
        kind = rng.random()
        wanted = "table" if kind < tables else "pairs" if kind < pairs else "none"
        is_hard = wanted == "table" and rng.random() < self._hard_share
        families = self._hard if is_hard else self._catalogue.seen
        while True:
            family = rng.choice(families)
            prompt = self._catalogue.draw(family, Split.TRAIN, rng.randrange(_PROMPTS))
            if _kind(prompt) == wanted:
                return prompt


def _kind(prompt: Prompt) -> str:
    if "table" in prompt.values:
        return "table"
    return "pairs" if pairs_of(prompt) else "none"
