"""Pair course: teaches a generator, after its text course, which value a prompt gives to which key.

Text teaches a generator the values of a table and not whose each is (`docs/decisions`, 104). So the
parts are learnt one by one, each from what it needs and nothing else; what the text course learnt,
and the edge model, stay as they are.

    words    codes and experts, on tables of drawn words that are given, a small vocabulary first
    suite    the same on pairs of suite prompts, given, beside the recipe of the text course
    ends     the readout, by itself: where pairs end, and their words
    prompts  all of it together, on pairs read from prompts

A course that stopped goes on at the stage it was in.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.errors import ConfigError
from loragen.method.edge import EdgeModel
from loragen.method.pair_reader import stack_states
from loragen.method.pool import Pool
from loragen.method.reader import Reader
from loragen.suite.pairs import Pair, pairs_of
from loragen.suite.splits import Catalogue, Prompt
from loragen.training.batches import Batch, Renderer, pad
from loragen.training.fit import LINEARS, TrainablePool
from loragen.training.optimizer import Optimizer
from loragen.training.pair_ends import Ends, ends_of, fit_readout, join
from loragen.training.pair_prompts import PairPrompts
from loragen.training.pair_words import DrawnWords
from loragen.training.passes import answer_loss, exact_matches, recipe_states
from loragen.training.progress import Progress
from loragen.training.word_vectors import WordVectors

logger = logging.getLogger(__name__)

_WARMUP: Final = 30


@dataclass(frozen=True, slots=True)
class PairSpec:
    """How long each stage is, and at what rates it learns."""

    catalogue: Catalogue
    experts: int = 128
    word_steps: int = 620
    suite_steps: int = 900
    end_batches: int = 450
    end_epochs: int = 12
    prompt_steps: int = 400
    pool_lr: float = 3e-3
    code_lr: float = 2e-3
    readout_lr: float = 2e-3
    late_factor: float = 0.3
    """On the rates of pool and codes in the last stage."""
    late_readout_lr: float = 1e-4
    table_share: float = 0.55
    pair_share: float = 0.3
    """Share of other prompts with pairs; the rest has none."""
    hard: tuple[str, ...] = ("tools",)
    """Families of tables that are learnt last: values of two words, some before their keys."""
    hard_share: float = 0.4
    """Share of tables that is drawn from those, at least."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What a text course taught a generator: its reader and its pool."""

    reader: Reader
    pool: Pool


class PairCourse:
    """A course at the beginning of a stage."""

    def __init__(
        self,
        edge: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        taught: Taught,
        spec: PairSpec,
        *,
        seed: int,
        state: Path,
    ) -> None:
        """Take what a text course taught; `state` is the file to keep.

        Raises:
            ConfigError: the state is of another generator or seed, or experts are not of rank 1.
        """
        torch.manual_seed(seed)
        self._spec, self._seed, self._state = spec, seed, state
        if taught.pool.spec.rank != 1:
            raise ConfigError(f"pair experts are of rank 1, the pool's of {taught.pool.spec.rank}")
        self._of = {"pool": taught.pool.id, "seed": seed}
        router = taught.reader.router.spec
        edge.requires_grad_(False)
        self.reader = Reader(
            taught.reader.cloud,
            replace(router, pair_experts=spec.experts),
            copy.deepcopy(edge.model),
        )
        self.reader.load_state_dict(taught.reader.state_dict(), strict=False)
        self.reader.eval().requires_grad_(False)
        assert self.reader.pairs is not None
        self._pairs = self.reader.pairs.requires_grad_(True)
        self.pool = TrainablePool(edge, router.experts + spec.experts)
        self.pool.load(taught.pool.tensors)
        self.pool.freeze_first(router.experts)
        self._edge = EdgeModel(copy.deepcopy(edge), LINEARS, self.pool.experts())
        self._renderer = Renderer(tokenizer)
        self._prompts = PairPrompts(spec.catalogue, self._renderer, spec.hard, spec.hard_share)
        self._vectors = WordVectors(edge, tokenizer)
        self._stages: tuple[Callable[[], None], ...] = (
            self._learn_words,
            self._learn_suite,
            self._learn_ends,
            self._learn_prompts,
        )
        self._done = 0
        if state.exists():
            self._restore()

    def train(self) -> None:
        """Go through all stages that are not done, saving after each."""
        for stage in self._stages[self._done :]:
            stage()
            self._done += 1
            self.save()

    def save(self) -> None:
        """Write the weights and the count of stages that are done."""
        state = {
            "pairs": self._pairs.state_dict(),
            "pool": self.pool.state_dict(),
            "done": self._done,
            "of": self._of,
        }
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)

    def _restore(self) -> None:
        state = torch.load(self._state, weights_only=True)
        if state["of"] != self._of:
            raise ConfigError(f"{self._state} is of another generator or seed: remove it")
        self._pairs.load_state_dict(state["pairs"])
        self.pool.load_state_dict(state["pool"])
        self._done = state["done"]
        logger.info("pairs: goes on after %d of %d stages", self._done, len(self._stages))

    def _learn_words(self) -> None:
        """Learn codes and experts on tables of two or three drawn words, by themselves."""
        self._pairs.train()
        words = DrawnWords(self._spec.catalogue, self._renderer, self._seed)
        optimizer = self._optimizer()
        steps = self._spec.word_steps
        progress = Progress(logger, "pairs words", steps)
        for step in range(steps):
            tables, batch = words.draw(Random(f"{self._seed}/words/{step}"))
            none = torch.zeros(len(tables), *self._text_shape)
            states = self._states(batch, none, self._given(tables))
            loss = answer_loss(self._edge.model, states, batch.targets)
            matches = exact_matches(self._edge.model, states.detach(), batch.targets)
            optimizer.step(loss, min(1.0, (step + 1) / _WARMUP))
            words.note(matches.float().mean().item())
            progress.add(step, loss.item(), f", {words.size} words")
        if words.size < words.count:
            logger.warning("pairs words: %d of %d words were reached", words.size, words.count)

    def _learn_suite(self) -> None:
        """Learn on pairs of suite prompts that are given, beside what the text course learnt."""
        self._pairs.train()
        self._run("suite", self._spec.suite_steps, self._suite_step, self._optimizer())

    def _learn_prompts(self) -> None:
        """Learn on whole prompts, whose pairs are read."""
        self._pairs.eval()  # what one prompt's codes are divided by depends on no other prompt
        spec = self._spec
        optimizer = self._optimizer(spec.late_factor, spec.late_readout_lr)
        self._run("prompts", spec.prompt_steps, self._prompt_step, optimizer)

    def _run(
        self,
        name: str,
        steps: int,
        compute: Callable[[Random], tuple[Batch, torch.Tensor]],
        optimizer: Optimizer,
    ) -> None:
        """Take the steps of a stage, the last four tenths at falling rates."""
        progress = Progress(logger, f"pairs {name}", steps)
        share = 0.0
        for step in range(steps):
            batch, states = compute(Random(f"{self._seed}/{name}/{step}"))
            loss = answer_loss(self._edge.model, states, batch.targets)
            matches = exact_matches(self._edge.model, states.detach(), batch.targets)
            optimizer.step(loss, _factor(step, steps))
            share += (matches.float().mean().item() - share) * min(1.0, 1 / (step + 1) + 0.04)
            progress.add(step, loss.item(), f", {share:.2f} right")

    def _suite_step(self, rng: Random) -> tuple[Batch, torch.Tensor]:
        prompts = self._prompts.draw(rng, tables=self._spec.table_share, pairs=1.0)
        batch = self._prompts.ask(prompts, rng, short=True)
        given = self._given([pairs_of(prompt) for prompt in prompts])
        return batch, self._states(batch, self._text_gates(batch), given)

    def _prompt_step(self, rng: Random) -> tuple[Batch, torch.Tensor]:
        spec = self._spec
        pairs = spec.table_share + spec.pair_share
        prompts = self._prompts.draw(rng, tables=spec.table_share, pairs=pairs)
        batch = self._prompts.ask(prompts, rng, short=rng.random() < 0.5)
        used = batch.prompts != self._renderer.pad_id
        read = self.reader.pair_gates(batch.prompts, used)
        return batch, self._states(batch, self._text_gates(batch), read)

    def _learn_ends(self) -> None:
        """Learn the readout from tokens of prompts, the same ones again and again."""
        spec = self._spec
        parts: list[Ends] = []
        progress = Progress(logger, "pairs ends, collecting", spec.end_batches)
        for number in range(spec.end_batches):
            rng = Random(f"{self._seed}/ends/{number}")
            parts += self._ends(self._prompts.draw(rng, tables=0.45, pairs=0.7), rng)
            progress.add(number, 0.0)
        fit_readout(self._pairs, join(parts), spec.end_epochs, spec.readout_lr, self._seed)

    @torch.no_grad()
    def _ends(self, prompts: list[Prompt], rng: Random) -> list[Ends]:
        """Return what tokens of some prompts teach the readout."""
        is_short = rng.random() < 0.5
        texts = self._renderer.prompt_texts(
            [prompt.rule if is_short else prompt.text for prompt in prompts]
        )
        encoded = self._renderer.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True
        )
        ids = pad(encoded["input_ids"], self._renderer.pad_id)
        states = stack_states(self.reader.edge_states(ids, ids != self._renderer.pad_id))
        found = [
            ends_of(prompt, text, offsets, states[row], self._vectors, rng)
            for row, (prompt, text, offsets) in enumerate(
                zip(prompts, texts, encoded["offset_mapping"], strict=True)
            )
        ]
        return [ends for ends in found if ends is not None]

    def _text_gates(self, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return self.reader.text_gates(batch.prompts, batch.prompts != self._renderer.pad_id)

    def _given(self, tables: list[list[Pair]]) -> torch.Tensor:
        """Return gates of pairs that are given."""
        bound = []
        for table in tables:
            keys, values = (self._vectors.stack(list(words)) for words in zip(*table, strict=True))
            bound.append(self._pairs.bind(keys, values).sum(0))
        present = torch.ones(len(tables), 1)
        return self.reader.unflatten_pairs(self._pairs.gates(torch.stack(bound), present))

    def _states(self, batch: Batch, text: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        gates = torch.cat([text, pairs], -1)
        return recipe_states(self._edge, batch, gates, self._renderer.bos_id)

    @property
    def _text_shape(self) -> tuple[int, int, int]:
        router = self.reader.router.spec
        return router.layers, router.linears, router.experts

    def _optimizer(self, factor: float = 1.0, readout_lr: float = 0.0) -> Optimizer:
        pairs, spec = self._pairs, self._spec
        codes = [*pairs.key_code.parameters(), *pairs.value_code.parameters()]
        return Optimizer(
            [],
            [
                (self.pool.parameters(), factor * spec.pool_lr),
                (codes, factor * spec.code_lr),
                (pairs.norm.parameters(), factor * spec.code_lr / 2),
                (pairs.readout_parameters(), readout_lr),
            ],
            0.0,
        )


def _factor(step: int, steps: int) -> float:
    flat = 0.6 * steps
    falling = 1.0 if step < flat else (steps - step) / (steps - flat)
    return min(1.0, (step + 1) / _WARMUP) * max(0.05, falling)
