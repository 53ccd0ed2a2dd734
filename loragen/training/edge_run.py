"""Edge run: trains an edge model under the curriculum, in a folder, over many processes.

    edge/           the model as it stood at the last checkpoint: Hugging Face folder, float32
    position.json   where in the curriculum that was
    state.pt        weights, optimiser and position; what the next process starts from

Every batch follows from the seed and the position, so a run that stopped at a checkpoint and went
on ends with the same weights as one that never stopped. Without `state.pt` it goes on from `edge/`
with an optimiser that warms up again.
"""

import copy
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.suite.splits import Catalogue
from loragen.template import FILE_NAME
from loragen.training.batches import Batch, Renderer, StreamSpec, resumable_batches
from loragen.training.checkpoint import save_tokenizer
from loragen.training.curriculum import PHASES, Phase, Position
from loragen.training.drill import Drill
from loragen.training.optimizer import Optimizer, split_parameters
from loragen.training.passes import (
    MESSAGE_WEIGHT,
    answer_loss,
    exact_matches,
    fast_precision,
    message_loss,
    prompted_states,
)
from loragen.training.pretrain import EdgeSize, new_model
from loragen.training.progress import Progress
from loragen.training.tokenizer import COMPILED_TEMPLATE, train_tokenizer

logger = logging.getLogger(__name__)

VOCAB_SIZE: Final = 6144
SAVE_EVERY_SECONDS: Final = 180.0
_WARMUP: Final = 20


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run trains, and on how much at once."""

    catalogue: Catalogue
    size: EdgeSize = field(default_factory=EdgeSize)
    phases: tuple[Phase, ...] = PHASES
    rows: int = 32
    drill_questions: int = 16
    text_segments: int = 10
    matrix_decay: float = 0.1


class EdgeRun:
    """A run at its last checkpoint, or at its start."""

    def __init__(self, folder: Path, spec: RunSpec, seed: int) -> None:
        self._folder, self._spec, self._seed = folder, spec, seed
        self.tokenizer = self._load_tokenizer()
        torch.manual_seed(seed)
        self.model = new_model(self.tokenizer, spec.size)
        matrices, others = split_parameters(self.model)
        self._optimizer = Optimizer(matrices, [(others, 0.0)], 0.0, matrix_decay=spec.matrix_decay)
        self._drill = Drill(
            self.tokenizer,
            spec.catalogue.words,
            rows=spec.rows,
            questions=spec.drill_questions,
        )
        self._renderer = Renderer(self.tokenizer)
        self.position = Position(spec.phases)
        self._started_at = 0
        if self._state.exists():
            self._restore()
        elif self._position.exists():
            self._start_from_model()

    @property
    def _state(self) -> Path:
        return self._folder / "state.pt"

    @property
    def _kept(self) -> Path:
        return self._folder / "kept"

    @property
    def _position(self) -> Path:
        return self._folder / "position.json"

    def train(self, *, seconds: float = math.inf, steps: int | None = None) -> bool:
        """Train for a time or a count of steps, save, and return whether the curriculum is over."""
        deadline = time.monotonic() + seconds
        last = math.inf if steps is None else self.position.total + steps
        self.model.train()

        def may_go_on() -> bool:
            return time.monotonic() < deadline and self.position.total < last

        while self.position.phase is not None and may_go_on():
            self._train_phase(self.position.phase, may_go_on)
        self.save()
        return self.position.phase is None

    def save(self) -> None:
        """Write a checkpoint; a process killed while it writes leaves the last one whole."""
        self._published().save_pretrained(self._folder / "edge")
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state(),
            "position": self.position.to_state(),
        }
        self._position.write_text(json.dumps(self.position.to_state()) + "\n", encoding="utf-8")
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)

    def _published(self) -> LlamaForCausalLM:
        """Return the model, or, after the last phase, the mean of all that were kept.

        What the last forgets of families that it never sees, the mean keeps (model soups, Wortsman
        et al., arXiv 2203.05482).
        """
        self.model.generation_config.do_sample = False
        if self.position.phase is not None or not self._files:
            return self.model
        model = copy.deepcopy(self.model)
        model.load_state_dict(_mean(self._files))
        return model

    @property
    def _files(self) -> list[Path]:
        """Weights that were kept."""
        return sorted(self._kept.glob("*.safetensors"))

    def _take_mean(self) -> None:
        """Go on from the mean of the weights that were kept, and keep them no longer."""
        if not self._files:
            return
        self.model.load_state_dict(_mean(self._files))
        self.save()  # before they are gone, which is at once: of some of them the mean is another
        taken = self._folder / "taken"
        shutil.rmtree(taken, ignore_errors=True)  # of a process that was killed here
        self._kept.rename(taken)
        shutil.rmtree(taken)

    def _train_phase(self, phase: Phase, may_go_on: Callable[[], bool]) -> None:
        """Train until the phase ends or may not go on."""
        position = self.position
        if phase.takes_mean and position.step == 0:
            self._take_mean()
        texts = self._texts(phase)
        progress = Progress(logger, f"edge {phase.name}", phase.steps, done=position.step)
        saved = time.monotonic()
        while position.phase is phase and may_go_on():
            step = position.step
            batch, style = self._draw(phase, texts)
            loss, accuracy = self._learn(batch, phase, is_text=style is None)
            position.advance(
                accuracy=accuracy if style == phase.style else None,
                is_text=style is None,
                vocabulary=self._drill.words,
            )
            note = f", drill {position.accuracy:.2f} of {self._words} words"
            progress.add(step, loss, note)
            # Where the phase ends is saved after its weights are kept: a mean would lack them.
            if position.phase is phase and time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self.save()
                saved = time.monotonic()
        if position.phase is not phase:
            if phase.is_kept:
                self._kept.mkdir(exist_ok=True)
                save_file(self.model.state_dict(), self._kept / f"{phase.name}.safetensors")
            logger.info("edge: phase %s is over after %d steps in all", phase.name, position.total)

    def _draw(self, phase: Phase, texts: Iterator[Batch]) -> tuple[Batch, int | None]:
        """Return the batch of the next step and its drill style, None for text."""
        rng = Random(f"{self._seed}/{self.position.total}")
        if rng.random() < phase.text_share:
            return next(texts), None
        return self._drill.draw(phase.style, self._words, rng)

    def _learn(self, batch: Batch, phase: Phase, *, is_text: bool) -> tuple[float, float]:
        """Take one step and return its loss and the share of exact answers before it."""
        position = self.position
        pad_id = self._renderer.pad_id
        self._optimizer.set_rates(phase.matrix_lr, phase.other_lr)
        with fast_precision():
            states = prompted_states(self.model, batch, pad_id).float()
        loss = answer_loss(self.model, states, batch.targets)
        with torch.no_grad():
            matches = exact_matches(self.model, states, batch.targets)
        learned = loss
        if is_text:  # drill messages are random words
            learned = loss + MESSAGE_WEIGHT * message_loss(self.model, states, batch, pad_id)
        warmup = min(1.0, (position.total - self._started_at + 1) / _WARMUP)
        self._optimizer.step(learned, warmup * phase.factor(position.step))
        return loss.item(), matches.float().mean().item()

    @property
    def _words(self) -> int:
        """Words that the drill draws from."""
        return min(self.position.words, self._drill.words)

    def _texts(self, phase: Phase) -> Iterator[Batch]:
        spec = StreamSpec(
            self._spec.catalogue,
            rows=self._spec.rows,
            segments=self._spec.text_segments,
            short_share=phase.short_share,
            binding_share=phase.binding_share,
            bindings=phase.bindings,
        )
        seed = f"{self._seed}/{phase.name}"
        return resumable_batches(self._renderer, spec, seed, self.position.texts)

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        folder = self._folder / "edge"
        if not (folder / FILE_NAME).exists():  # written last
            tokenizer = train_tokenizer(self._spec.catalogue, VOCAB_SIZE, self._seed)
            save_tokenizer(tokenizer, folder)
            (folder / FILE_NAME).write_text(COMPILED_TEMPLATE, "utf-8")
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        return loaded

    def _start_from_model(self) -> None:
        weights = load_file(self._folder / "edge" / "model.safetensors")
        self.model.load_state_dict(weights)
        self.position.restore(json.loads(self._position.read_text("utf-8")))
        self._started_at = self.position.total
        logger.info("edge: goes on from the model of step %d", self.position.total)

    def _restore(self) -> None:
        state = torch.load(self._state, weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.restore(state["optimizer"])
        self.position.restore(state["position"])
        phase = self.position.phase
        logger.info("edge: goes on at step %d, phase %s", self.position.total, phase and phase.name)


def _mean(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights in files."""
    kept = [load_file(file) for file in files]
    return {name: sum(each[name] for each in kept) / len(kept) for name in kept[0]}
