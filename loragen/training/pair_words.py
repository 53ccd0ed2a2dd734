"""Drawn words: tables of random words that are given as pairs, of few words first."""

from collections import deque
from random import Random
from typing import Final

from loragen.suite.family import Turn
from loragen.suite.pairs import Pair
from loragen.suite.splits import Catalogue
from loragen.training.batches import Batch, Renderer, Row

_ROWS: Final = 32
_QUESTIONS: Final = 8
_FIRST: Final = 8
_LEARNT: Final = 0.75
"""Share of right answers, over the last batches, at which the words double."""
_WINDOW: Final = 10


class DrawnWords:
    """Draws tables of two or three pairs.

    Attributes:
        size: how many words tables hold at present.
        count: how many there are.
    """

    def __init__(self, catalogue: Catalogue, renderer: Renderer, seed: int) -> None:
        """Take the catalogue's words that are one token, in an order of the seed."""
        known = sorted({str(word) for word in catalogue.words})
        encoded = renderer.encode([f" {word}" for word in known])
        self._words = [word for word, ids in zip(known, encoded, strict=True) if len(ids) == 1]
        Random(seed).shuffle(self._words)
        self._renderer = renderer
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self.size = _FIRST
        self.count = len(self._words)

    def draw(self, rng: Random) -> tuple[list[list[Pair]], Batch]:
        """Draw tables with questions that name a key; the prompts are empty."""
        tables = [self._table(rng) for _ in range(_ROWS)]
        rows = []
        for table in tables:
            asked = [rng.choice(table) for _ in range(_QUESTIONS)]
            rows.append(Row("", tuple((Turn(key, value, value),) for key, value in asked)))
        return tables, self._renderer.batch(rows, [[False] * _QUESTIONS] * _ROWS)

    def note(self, right: float) -> None:
        """Take note of the share of right answers to a batch."""
        self._recent.append(right)
        if len(self._recent) == _WINDOW and sum(self._recent) > _LEARNT * _WINDOW:
            self._recent.clear()
            self.size = min(2 * self.size, len(self._words))

    def _table(self, rng: Random) -> list[Pair]:
        rows = rng.randint(2, 3)
        drawn = rng.sample(self._words[: self.size], 2 * rows)
        return list(zip(drawn[:rows], drawn[rows:], strict=True))
