"""Drill: key-value lookup, learned before any natural prompt.

Rules such as "say amber if the review is good" need a word bound to the label beside it. Trained
on suite text alone, the edge model stays at chance between the labels of a prompt; a few hundred
steps on bare pairs form the lookup, if they start with few words and an answer right behind its
key. Later stages add chat turns, separators, both orders and all words.
"""

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from transformers import LlamaForCausalLM

from loragen.suite.words import CATEGORIES, ITEMS, MARKS
from loragen.training.batches import IGNORED, Batch, Renderer, pad
from loragen.training.optimizer import Optimizer
from loragen.training.passes import answer_loss, exact_matches, prompted_states

logger = logging.getLogger(__name__)

ROWS: Final = 32
QUESTIONS: Final = 12
_WINDOW: Final = 8
"""Batches whose mean accuracy ends a stage."""
_KEYS: Final = (
    *ITEMS,
    *CATEGORIES,
    *("good", "bad", "positive", "negative", "urgent", "normal", "question", "statement"),
)
_KEY_FIRST: Final = ("{key} {mark}", "{key}: {mark}", "{key} is {mark}", "{key} means {mark}")
_MARK_FIRST: Final = ("{mark} for {key}", "{mark} if {key}", "{mark} after {key}")
_JOINTS: Final = (" ", ", ", ". ", "; ")


@dataclass(frozen=True, slots=True)
class DrillStage:
    """What pairs look like, and when it is learned."""

    words: int
    max_steps: int
    in_chat: bool = True
    both_orders: bool = True
    accuracy: float = 0.9
    factor: float = 1.0


STAGES: Final = (
    DrillStage(words=16, max_steps=250, in_chat=False, both_orders=False),
    DrillStage(words=16, max_steps=150, both_orders=False),
    DrillStage(words=16, max_steps=260),
    DrillStage(words=32, max_steps=100, accuracy=0.85, factor=0.5),
    DrillStage(words=80, max_steps=100, accuracy=0.85, factor=0.5),
)


class Drill:
    """Draws lookup batches; the words of a stage are those of earlier ones and more."""

    def __init__(self, renderer: Renderer, seed: int) -> None:
        self._renderer = renderer
        self._rng = Random(f"drill/{seed}")
        self._keys = self._rng.sample(_KEYS, len(_KEYS))
        self._marks = self._rng.sample(MARKS, len(MARKS))

    def batches(self, stage: DrillStage) -> Iterator[Batch]:
        """Yield batches of a stage for ever."""
        while True:
            yield self._batch(stage)

    def learn(self, model: LlamaForCausalLM, optimizer: Optimizer) -> None:
        """Train through all stages."""
        for number, stage in enumerate(STAGES):
            recent: deque[float] = deque(maxlen=_WINDOW)
            for step, batch in zip(range(stage.max_steps), self.batches(stage), strict=False):
                states = prompted_states(model, batch, self._renderer.pad_id)
                recent.append(_accuracy(model, states.detach(), batch))
                warmup = min(1.0, (step + 1) / 20)
                optimizer.step(answer_loss(model, states, batch.targets), stage.factor * warmup)
                if len(recent) == _WINDOW and sum(recent) / _WINDOW > stage.accuracy:
                    break
            accuracy = sum(recent) / len(recent)
            logger.info("drill stage %d: %d steps, accuracy %.2f", number, step + 1, accuracy)

    def _batch(self, stage: DrillStage) -> Batch:
        prompts: list[str] = []
        pairs: list[tuple[str, str]] = []
        for _ in range(ROWS):
            table = self._table(stage)
            prompts.append(self._state(table, stage))
            pairs += self._rng.choices(table, k=QUESTIONS)
        if stage.in_chat:
            segments = self._renderer.segment_ids([[pair] for pair in pairs])
            targets = [self._renderer.targets(segment) for segment in segments]
        else:
            segments = self._renderer.encode([f" {key} {mark}" for key, mark in pairs])
            targets = [[mark_id, IGNORED] for _, mark_id in segments]
        return Batch(
            prompts=pad(self._renderer.prompt_ids(prompts), self._renderer.pad_id),
            segments=pad(segments, self._renderer.pad_id).view(ROWS, QUESTIONS, -1),
            targets=pad(targets, IGNORED).view(ROWS, QUESTIONS, -1),
            bare=torch.zeros(ROWS, QUESTIONS, dtype=torch.bool),
        )

    def _table(self, stage: DrillStage) -> list[tuple[str, str]]:
        count = self._rng.randint(2, 5) if stage.in_chat else self._rng.randint(4, 6)
        keys = self._rng.sample(self._keys[: stage.words], count)
        marks = self._rng.sample(self._marks[: stage.words], count)
        return list(zip(keys, marks, strict=True))

    def _state(self, table: list[tuple[str, str]], stage: DrillStage) -> str:
        """Write a table down in one style."""
        style, joint = _KEY_FIRST[0], _JOINTS[0]
        if stage.in_chat:
            mark_first = stage.both_orders and self._rng.random() < 0.5
            style = self._rng.choice(_MARK_FIRST if mark_first else _KEY_FIRST)
            joint = self._rng.choice(_JOINTS)
        return joint.join(style.format(key=key, mark=mark) for key, mark in table)


def _accuracy(model: LlamaForCausalLM, states: torch.Tensor, batch: Batch) -> float:
    return exact_matches(model, states, batch.targets).float().mean().item()
