"""Generator run: cloud model, meta tokens, router and pool, end to end through a frozen edge model.

The cloud model starts as the edge model, grown if asked, and reads the prompt; the edge model reads
only the messages and answers under the gates. The loss is the answers' cross-entropy, and for L0
the paper's balance term (alpha = 0.01).

Every batch follows from the seed and the step, so a run that stopped at a checkpoint and went on
ends with the same weights as one that never stopped.
"""

import copy
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.method.edge import EdgeModel
from loragen.method.generator import Reader
from loragen.method.router import RouterSpec, balance_loss
from loragen.recipe import Level
from loragen.suite.demo import DEMO
from loragen.suite.splits import Catalogue
from loragen.suite.tenants import TENANTS
from loragen.training.batches import (
    Batch,
    Renderer,
    StreamSpec,
    resumable_batches,
    turns_and_prompt_length,
)
from loragen.training.fit import LINEARS, TrainablePool, recipe_loss, to_columns
from loragen.training.growth import CloudSize, grow
from loragen.training.optimizer import Optimizer, Schedule, split_parameters
from loragen.training.progress import Progress

logger = logging.getLogger(__name__)

BALANCE_ALPHA: Final = 0.01
SAVE_EVERY_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Course:
    """Steps on one kind of prompts."""

    steps: int
    short_share: float = 0.0
    """Share of prompts that are their rule alone."""
    binding_share: float = 0.0
    """Share of prompts from families that bind values to keys alone."""
    most_rows: int | None = None
    """Most rows of a table; any number if None."""


@dataclass(frozen=True, slots=True)
class GeneratorRunSpec:
    """Recipe level, pool shape, cloud model and schedule."""

    level: Level
    experts: int
    rank: int
    courses: tuple[Course, ...]
    catalogue: Catalogue = DEMO
    cloud: CloudSize | None = None
    """None: as large as the edge model."""
    top_k: int = 2
    matrix_lr: float = 0.01
    matrix_decay: float = 0.0
    pool_lr: float = 5e-3
    router_lr: float = 1.5e-3

    @property
    def steps(self) -> int:
        """Steps of all courses."""
        return sum(course.steps for course in self.courses)

    def course(self, step: int) -> tuple[Course, int]:
        """Return the course of a step, and how many of its steps come before it."""
        for course in self.courses:
            if step < course.steps:
                return course, step
            step -= course.steps
        raise IndexError("the run is over")


DENSE: Final = GeneratorRunSpec(Level.DENSE, experts=64, rank=1, courses=(Course(800),))
PAPER: Final = GeneratorRunSpec(Level.PAPER, experts=8, rank=16, courses=(Course(1000),))
TENANTS_DENSE: Final = GeneratorRunSpec(
    Level.DENSE,
    experts=64,
    rank=1,
    courses=(
        Course(400, short_share=1.0, binding_share=0.3, most_rows=2),
        Course(800, short_share=0.5, binding_share=0.3, most_rows=4),
        Course(1600, short_share=0.2),
    ),
    catalogue=TENANTS,
    matrix_decay=0.1,
)


class GeneratorRun:
    """A run at its last checkpoint, or at its start."""

    def __init__(
        self,
        edge: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        spec: GeneratorRunSpec,
        seed: int,
        state: Path,
    ) -> None:
        """Train for an edge model, whose weights stay as they are; `state` is the file to keep."""
        torch.manual_seed(seed)
        self._spec, self._seed, self._state = spec, seed, state
        edge.requires_grad_(False)
        self.pool = TrainablePool(edge, spec.experts * spec.rank)
        self._edge = EdgeModel(copy.deepcopy(edge), LINEARS, self.pool.experts())
        cloud = copy.deepcopy(edge.model) if spec.cloud is None else grow(edge.model, spec.cloud)
        self.reader = Reader(cloud.requires_grad_(True), _router_spec(edge, cloud.config, spec))
        matrices, others = split_parameters(self.reader.cloud)
        own = [self.reader.meta_LD, *self.reader.router.parameters(), *others]
        self._optimizer = Optimizer(
            matrices,
            [(self.pool.parameters(), spec.pool_lr), (own, spec.router_lr)],
            spec.matrix_lr,
            matrix_decay=spec.matrix_decay,
        )
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self.step = 0
        if state.exists():
            self._restore()

    @property
    def is_over(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self._spec.steps

    def train(self, *, seconds: float = math.inf, steps: int | None = None) -> bool:
        """Train for a time or a count of steps, save, and return whether the run is over."""
        deadline = time.monotonic() + seconds
        last = self._spec.steps if steps is None else min(self.step + steps, self._spec.steps)
        schedule = Schedule(self._spec.steps)
        stage = f"generator {self._spec.level.name.lower()}"
        progress = Progress(logger, stage, self._spec.steps, done=self.step)
        saved = time.monotonic()
        batches: Iterator[Batch] = iter(())
        self.reader.train()
        begins = True
        while self.step < last and time.monotonic() < deadline:
            course, done = self._spec.course(self.step)
            if begins or done == 0:
                batches, begins = self._batches(course, done), False
            loss = self._learn(next(batches), schedule.factor(self.step))
            progress.add(self.step, loss)
            self.step += 1
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        self.reader.eval()
        return self.is_over

    def save(self) -> None:
        """Write a checkpoint; a process killed while it writes leaves the last one whole."""
        state = {
            "reader": self.reader.state_dict(),
            "pool": self.pool.state_dict(),
            "optimizer": self._optimizer.state(),
            "step": self.step,
        }
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)

    def _learn(self, batch: Batch, factor: float) -> float:
        """Take one step and return the cross-entropy before it."""
        gates_BLMN = self.reader(batch.prompts, batch.prompts != self._renderer.pad_id)
        columns_BLMR = to_columns(gates_BLMN, self._spec.rank)
        loss = recipe_loss(self._edge, batch, columns_BLMR, self._renderer.bos_id)
        learned = loss
        if self._spec.level is Level.PAPER:
            learned = loss + BALANCE_ALPHA * balance_loss(gates_BLMN)
        self._optimizer.step(learned, factor)
        return loss.item()

    def _batches(self, course: Course, done: int) -> Iterator[Batch]:
        spec = StreamSpec(
            self._spec.catalogue,
            bare_share=0.0,
            short_share=course.short_share,
            binding_share=course.binding_share,
            most_rows=course.most_rows,
        )
        number = self._spec.courses.index(course)
        seed = f"{self._spec.level.name}/{self._seed}/{number}"
        return resumable_batches(self._renderer, spec, seed, done, turns_and_prompt_length)

    def _restore(self) -> None:
        state = torch.load(self._state, weights_only=True)
        self.reader.load_state_dict(state["reader"])
        self.pool.load_state_dict(state["pool"])
        self._optimizer.restore(state["optimizer"])
        self.step = state["step"]
        logger.info("generator: goes on at step %d", self.step)


def _router_spec(edge: LlamaForCausalLM, cloud: LlamaConfig, spec: GeneratorRunSpec) -> RouterSpec:
    hidden = int(cloud.hidden_size)
    return RouterSpec(
        level=spec.level,
        cloud_hidden=hidden,
        hidden=hidden,
        layers=int(edge.config.num_hidden_layers),
        linears=len(LINEARS),
        experts=spec.experts,
        top_k=min(spec.top_k, spec.experts),
    )
