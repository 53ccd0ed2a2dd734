"""Trial: random requests to a running worker, and the judgement of its replies."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from transformers import AutoTokenizer

from tests.differential.asks import AskDrawer
from tests.differential.client import Client
from tests.differential.judge import Case, Judge, Mismatch, Verdict
from tests.differential.oracle import Oracle
from tests.fakes.tiny import TinyEdge
from tests.fakes.worker_process import WorkerClient

logger = logging.getLogger(__name__)

_PROGRESS: Final = 250
_BATCHES_AT_ONCE: Final = 2
"""Requests at a worker at a time, in batches: one runs, one waits."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial."""

    cases: Sequence[Case]
    verdict: Verdict
    misled: frozenset[int]
    """Asks whose recipe the judge was not told."""

    @property
    def mismatches(self) -> list[Mismatch]:
        """Replies that should have been right."""
        return [each for each in self.verdict.mismatches if each.number not in self.misled]

    @property
    def found(self) -> int:
        """How many of the misled asks the judge noticed."""
        return len(self.misled & {each.number for each in self.verdict.mismatches})

    def kinds(self) -> dict[str, int]:
        """Return how many requests were of each kind."""
        counts = Counter(kind for ask, reply in self.cases for kind in ask.kinds())
        counts["hung up"] = sum(reply.has_left for _, reply in self.cases)
        counts["recipes"] = len({ask.recipe.id for ask, _ in self.cases if ask.recipe})
        return dict(counts.most_common())


class Trial:
    """Draws, sends and judges the requests of one seed."""

    def __init__(self, tiny: TinyEdge, *, seed: str, max_model_len: int) -> None:
        self._drawer = AskDrawer(tiny, max_model_len=max_model_len, seed=seed)
        self._judge = Judge(
            Oracle(tiny.model, tiny.pool), AutoTokenizer.from_pretrained(tiny.model)
        )
        self._order = Random(f"order {seed}")

    def run(
        self, worker: WorkerClient, *, requests: int, misled: int, max_num_seqs: int
    ) -> Outcome:
        """Send so many requests, and a few more of whose recipe the judge is told wrong."""
        pairs = [(ask, ask) for ask in map(self._drawer.draw, range(requests))]
        pairs += [self._drawer.misled(requests + number) for number in range(misled)]
        self._order.shuffle(pairs)
        client = Client(worker, at_once=_BATCHES_AT_ONCE * max_num_seqs)
        sent = [sent for _, sent in pairs]
        replies = asyncio.run(client.ask_all(sent, _Progress("answered", len(sent)).add))
        cases = [(told, reply) for (told, _), reply in zip(pairs, replies, strict=True)]
        verdict = self._judge.judge(cases, _Progress("judged", len(cases)).add)
        return Outcome(cases, verdict, frozenset(range(requests, requests + misled)))


class _Progress:
    def __init__(self, what: str, of: int) -> None:
        self._what, self._of, self._done = what, of, 0

    def add(self, count: int) -> None:
        before, self._done = self._done, self._done + count
        if before // _PROGRESS != self._done // _PROGRESS:
            logger.info("%d of %d %s", self._done, self._of, self._what)
