"""Generator run: cloud model, meta tokens, router and pool, end to end through a frozen edge model.

The cloud model starts as the edge model, grown if asked, and reads the prompt; the edge model reads
only the messages and answers under the gates. The loss is the answers' cross-entropy, and for L0
the paper's balance term (alpha = 0.01). A phase may hold drill of tables, as an edge model's do.

Every batch follows from the seed and the step, so a run that stopped at a checkpoint and went on
ends with the same weights as one that never stopped.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.method.edge import EdgeModel
from loragen.method.pool import Experts
from loragen.method.reader import Reader
from loragen.method.router import RouterSpec, balance_loss
from loragen.recipe import Level
from loragen.training.batches import (
    Batch,
    Renderer,
    StreamSpec,
    resumable_batches,
    turns_and_prompt_length,
)
from loragen.training.curriculum import Phase, Position
from loragen.training.drill import STYLES, Drill, Style
from loragen.training.fit import LINEARS, TrainablePool, to_columns
from loragen.training.generator_spec import GeneratorRunSpec
from loragen.training.growth import grow
from loragen.training.optimizer import Optimizer, split_parameters
from loragen.training.passes import answer_loss, exact_matches, fast_precision, recipe_states
from loragen.training.progress import Progress

logger = logging.getLogger(__name__)

SAVE_EVERY_SECONDS: Final = 180.0
_FIRST_WORDS: Final = 8
"""Words that tables begin with: a reader learns whose value is whose from few of them."""


_WARMUP: Final = 40

LOOKUPS: Final = (
    Style(pairs=(2, 3)),
    replace(STYLES[2], pairs=(2, 4), chat_share=1.0),
    replace(STYLES[3], pairs=(2, 4), chat_share=1.0),
    replace(STYLES[4], pairs=(2, 6), chat_share=1.0),
)
"""Drill of generators: every question is a chat's, as in serving."""


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
        self.pool = TrainablePool(edge, (spec.experts + spec.pair_experts) * spec.rank)
        self._edge = EdgeModel(copy.deepcopy(edge), LINEARS, self.pool.experts())
        cloud = copy.deepcopy(edge.model) if spec.cloud is None else grow(edge.model, spec.cloud)
        router = _router_spec(edge, cloud.config, spec)
        decoder = copy.deepcopy(edge.model) if spec.pair_experts else None
        self.reader = Reader(cloud.requires_grad_(True), router, decoder)
        self._optimizer = self._new_optimizer()
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self._drill = Drill(tokenizer, spec.catalogue.words, styles=LOOKUPS, questions=8)
        self.position = Position(spec.phases, words=_FIRST_WORDS)
        self._started_at = 0
        if state.exists():
            self._restore()

    def go_on_from(
        self, reader: Reader, experts: Experts, position: dict[str, Any] | None = None
    ) -> None:
        """Take over weights, of a run whose optimiser is not kept also its position."""
        self.reader.load_state_dict(reader.state_dict())
        self.pool.load(experts)
        if position is not None:
            self.position.restore(position)
        self._started_at = self.position.total
        logger.info("generator: goes on from the weights of step %d", self.position.total)

    @property
    def is_over(self) -> bool:
        """Whether all phases are done."""
        return self.position.phase is None

    def train(self, *, seconds: float = math.inf, steps: int | None = None) -> bool:
        """Train for a time or a count of steps, save, and return whether the run is over."""
        deadline = time.monotonic() + seconds
        last = math.inf if steps is None else self.position.total + steps
        self.reader.train()
        if self.reader.pairs is not None:
            self.reader.pairs.eval()  # its norm is that of prompts with pairs

        def may_go_on() -> bool:
            return time.monotonic() < deadline and self.position.total < last

        while self.position.phase is not None and may_go_on():
            self._train_phase(self.position.phase, may_go_on)
        self.save()
        self.reader.eval()
        return self.is_over

    def _train_phase(self, phase: Phase, may_go_on: Callable[[], bool]) -> None:
        """Train until the phase ends or may not go on."""
        position = self.position
        self.reader.cloud.requires_grad_(not phase.is_frozen)
        texts = self._texts(phase)
        stage = f"generator {self._spec.level.name.lower()} {phase.name}"
        progress = Progress(logger, stage, phase.steps, done=position.step)
        saved = time.monotonic()
        while position.phase is phase and may_go_on():
            step = position.step
            batch, style = self._draw(phase, texts)
            loss, accuracy = self._learn(batch, phase)
            position.advance(
                accuracy=accuracy if style == phase.style else None,
                is_text=style is None,
                vocabulary=self._drill.words,
            )
            words = min(position.words, self._drill.words)
            progress.add(step, loss, f", drill {position.accuracy:.2f} of {words} words")
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.monotonic()

    def save(self) -> None:
        """Write a checkpoint; a process killed while it writes leaves the last one whole."""
        state = {
            "reader": self.reader.state_dict(),
            "pool": self.pool.state_dict(),
            "optimizer": self._optimizer.state(),
            "position": self.position.to_state(),
        }
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)

    def _draw(self, phase: Phase, texts: Iterator[Batch]) -> tuple[Batch, int | None]:
        """Return the batch of the next step and its drill style, None for text."""
        rng = Random(f"{self._seed}/{self.position.total}")
        if rng.random() < phase.text_share:
            return next(texts), None
        words = min(self.position.words, self._drill.words)
        return self._drill.draw(phase.style, words, rng)

    def _learn(self, batch: Batch, phase: Phase) -> tuple[float, float]:
        """Take one step and return the cross-entropy and the share of exact answers before it."""
        position = self.position
        with fast_precision():
            gates_BLMN = self.reader(batch.prompts, batch.prompts != self._renderer.pad_id)
            columns_BLMR = to_columns(gates_BLMN, self._spec.rank)
            states = recipe_states(self._edge, batch, columns_BLMR, self._renderer.bos_id)
        loss = answer_loss(self._edge.model, states.float(), batch.targets)
        with torch.no_grad():
            matches = exact_matches(self._edge.model, states.float(), batch.targets)
        learned = loss
        if self._spec.level is Level.PAPER:
            learned = loss + self._spec.balance * balance_loss(gates_BLMN.float())
        spec = self._spec
        self._optimizer.set_rates(phase.matrix_lr, spec.pool_lr, spec.router_lr, spec.pair_lr)
        warmup = min(1.0, (position.total - self._started_at + 1) / _WARMUP)
        self._optimizer.step(learned, warmup * phase.factor(position.step))
        return loss.item(), matches.float().mean().item()

    def _new_optimizer(self) -> Optimizer:
        matrices, others = split_parameters(self.reader.cloud)
        pairs = [] if self.reader.pairs is None else [*self.reader.pairs.parameters()]
        apart = {*self.reader.cloud.parameters(), *pairs}
        own = [p for p in self.reader.parameters() if p.requires_grad and p not in apart]
        spec = self._spec
        return Optimizer(
            matrices,
            [
                (self.pool.parameters(), spec.pool_lr),
                ([*own, *others], spec.router_lr),
                (pairs, spec.pair_lr),
            ],
            0.0,
            matrix_decay=spec.matrix_decay,
        )

    def _texts(self, phase: Phase) -> Iterator[Batch]:
        spec = StreamSpec(
            self._spec.catalogue,
            rows=self._spec.rows,
            segments=self._spec.segments,
            bare_share=0.0,
            short_share=phase.short_share,
            binding_share=phase.binding_share,
            bindings=phase.bindings,
            most_rows=phase.most_rows,
        )
        seed = f"{self._spec.level.name}/{self._seed}/{phase.name}"
        start = self.position.texts
        return resumable_batches(self._renderer, spec, seed, start, turns_and_prompt_length)

    def _restore(self) -> None:
        state = torch.load(self._state, weights_only=True)
        self.reader.load_state_dict(state["reader"])
        self.pool.load_state_dict(state["pool"])
        self._optimizer.restore(state["optimizer"])
        self.position.restore(state["position"])
        logger.info("generator: goes on at step %d", self.position.total)


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
        binds=int(spec.binds),
        pair_experts=spec.pair_experts,
    )
