"""Refiner: measures and refines tasks given as texts.

Of the probes that a task is refined on, a quarter is held out: they measure the recipe it had and
the refined one, as int8 bytes, the way they are served. A task that comes without probes gets the
messages of the examples in its prompt, and self-generated ones.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final, Self

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from loragen.errors import ArtifactCorrupt, InvalidRequest, PromptTooLong
from loragen.examples import example_messages
from loragen.method.chat_turns import behind_answer, user_turn
from loragen.method.edge import EdgeModel
from loragen.method.fidelity import Fidelity, doubt, measure
from loragen.method.gatespace import stack_gates
from loragen.method.pool import Pool
from loragen.method.probes import Probe, answered
from loragen.method.refine import RefineSpec, refine
from loragen.method.self_probes import expected_messages
from loragen.own_template import OwnTemplate
from loragen.recipe import Level, Recipe
from loragen.template import CompiledTemplate
from loragen.tools import Tool
from loragen.wire import MAX_PROBE_CHARS, MIN_PROBES

_HELD_OUT_SHARE: Final = 4
"""One probe of so many is held out ..."""
_LEAST_HELD_OUT: Final = 4
"""... but not fewer than this: a score of less says nothing."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A task's probes as tokens: those to fit, those to measure with, and where to start."""

    fitted: list[Probe]
    held_out: list[Probe]
    start: Recipe | None


@dataclass(frozen=True, slots=True)
class Measured:
    """A recipe's fidelity, and on how many probes."""

    fidelity: Fidelity
    probes: int


@dataclass(frozen=True, slots=True)
class Refined:
    """The recipe that came of it, and both recipes' fidelity on the probes held out."""

    recipe: Recipe
    before: Fidelity
    after: Fidelity
    fitted: int
    held_out: int


class Refiner:
    """Fits tasks of one edge model on its pool, which `pool_id` and `template_hash` tell."""

    def __init__(
        self,
        edge: EdgeModel,
        pool: Pool,
        tokenizer: PreTrainedTokenizerBase,
        *,
        own: OwnTemplate,
        compiled: CompiledTemplate,
        spec: RefineSpec,
    ) -> None:
        edge.model.requires_grad_(False)
        self.pool_id = pool.id
        self.template_hash = pool.spec.template_hash
        self._pool = pool
        self._edge = edge
        self._tokenizer = tokenizer
        self._own = own.with_system()
        self._compiled = compiled
        self._spec = spec
        self._context = int(edge.model.config.max_position_embeddings)
        self._end_id = self._end_of_answers()

    @classmethod
    def load(
        cls,
        folder: Path,
        pool_file: Path,
        *,
        own: OwnTemplate,
        compiled: CompiledTemplate,
        spec: RefineSpec,
    ) -> Self:
        """Load the edge model in a folder, with its pool and its templates.

        Raises:
            ArtifactCorrupt: a file is unreadable, or the pool was made for another edge model or
                compiled template.
        """
        pool = Pool.load(pool_file)
        if pool.spec.template_hash != compiled.hash:
            raise ArtifactCorrupt(f"pool {pool_file} was made for another compiled template")
        edge = EdgeModel.load(folder, pool)
        # As a worker reads it: where a folder holds Mistral's own file, the default is another.
        tokenizer = AutoTokenizer.from_pretrained(folder, mistral_format=False)
        return cls(edge, pool, tokenizer, own=own, compiled=compiled, spec=spec)

    def lesson(
        self,
        prompt: str,
        probes: Sequence[tuple[str, str | None]] | None,
        *,
        tools: Sequence[Tool] = (),
        start: Recipe | None = None,
    ) -> Lesson:
        """Read a task: its prompt, what to ask it, and what to answer, where that is given.

        Without probes it is asked `RefineSpec.self_probes` messages: those of its examples, at most
        half, and varied ones that the edge model expects.

        Raises:
            InvalidRequest: the templates refuse the prompt or a probe, or the edge model expects
                too few different messages.
            PromptTooLong: with the prompt a probe does not fit the edge model's context.
            RecipeMismatch, RecipeInvalid: the start is not a recipe of this pool.
        """
        stack_gates([start], self.pool_id, self._pool.spec)
        known = self._known(prompt, tools, probes, self._spec.self_probes, varied=True)
        Random(0).shuffle(known)  # clients sort: without it whole kinds could be held out
        held_out = max(_LEAST_HELD_OUT, len(known) // _HELD_OUT_SHARE)
        return Lesson(known[held_out:], known[:held_out], start)

    def fit(self, lessons: Sequence[Lesson], *, deadline: float = math.inf) -> list[torch.Tensor]:
        """Return fitted gates [L, M, N] of each lesson, one per expert.

        Raises:
            DeadlineExceeded: not by the deadline, of `time.monotonic()`.
        """
        spec = self._pool.spec
        starts = stack_gates([each.start for each in lessons], self.pool_id, spec)
        gates_BLMN = refine(
            self._edge,
            [each.fitted for each in lessons],
            starts[..., :: spec.rank],
            self._spec,
            rank=spec.rank,
            deadline=deadline,
        )
        return list(gates_BLMN)

    def examine(self, lesson: Lesson, gates_LMN: torch.Tensor) -> Refined:
        """Make fitted gates a recipe, and measure it beside the one it comes from.

        Raises:
            RecipeInvalid: fitting led out of bounds.
        """
        recipe = Recipe.encode(gates_LMN.numpy(), pool_id=self.pool_id, level=Level.DENSE)
        pair = stack_gates([lesson.start, recipe], self.pool_id, self._pool.spec)
        # Doubt is the prompt's alone: fitting on a probe does not change it, and more know better.
        unsure = doubt(self._edge, [*lesson.fitted, *lesson.held_out])
        before, after = (
            replace(measure(self._edge, lesson.held_out, gates), doubt=unsure) for gates in pair
        )
        return Refined(recipe, before, after, len(lesson.fitted), len(lesson.held_out))

    def measure(
        self,
        prompt: str,
        probes: Sequence[tuple[str, str | None]] | None,
        recipe: Recipe,
        *,
        tools: Sequence[Tool] = (),
    ) -> Measured:
        """Measure the recipe of a task on probes.

        Without probes it is asked `RefineSpec.measure_probes` messages: those of its examples, at
        most half, and usual ones that the edge model expects.

        Raises:
            InvalidRequest, PromptTooLong, RecipeMismatch, RecipeInvalid: as `lesson`.
        """
        (gates_LMR,) = stack_gates([recipe], self.pool_id, self._pool.spec)
        known = self._known(prompt, tools, probes, self._spec.measure_probes)
        return Measured(measure(self._edge, known, gates_LMR), len(known))

    def _known(
        self,
        prompt: str,
        tools: Sequence[Tool],
        probes: Sequence[tuple[str, str | None]] | None,
        count: int,
        *,
        varied: bool = False,
    ) -> list[Probe]:
        """Return probes with their answers; so many made up where none are given."""
        system = [{"role": "system", "content": prompt}] if prompt else []
        if probes is None:
            shown = self._fitting(example_messages(prompt), system, tools)[: count // 2]
            messages = [*shown, *self._expected(system, tools, count, varied=varied)]
            messages = (list(dict.fromkeys(messages)) if varied else messages)[:count]
            missing = MIN_PROBES - len(set(messages))
            if missing > 0 and not varied:
                odd = self._expected(system, tools, count, varied=True)
                messages += [message for message in odd if message not in messages][:missing]
            _require_enough(messages)
            # An example's own answer is not taken: worth is measured against what the model says
            # under the whole prompt, and a text that only looks like an example does no harm.
            probes = [(message, None) for message in messages]
        asked = {probe: self._probe(system, tools, *probe) for probe in probes}
        known = answered(self._edge, list(asked.values()), max_tokens=self._spec.max_answer_tokens)
        by_message = dict(zip(asked, known, strict=True))
        return [by_message[probe] for probe in probes]

    def _fitting(
        self, messages: Sequence[str], system: Sequence[dict[str, str]], tools: Sequence[Tool]
    ) -> list[str]:
        """Return those messages that the context has room for, and no longer than a probe's."""
        fitting: list[str] = []
        for message in messages:
            with suppress(PromptTooLong):
                self._probe(system, tools, message, None)
                fitting.append(message)
        return [message for message in fitting if len(message) <= MAX_PROBE_CHARS]

    def _expected(
        self, system: Sequence[dict[str, str]], tools: Sequence[Tool], count: int, *, varied: bool
    ) -> list[str]:
        turn = user_turn(self._own, system, [tool.body() for tool in tools])
        around = len(self._encode(turn[0])) + len(self._encode(turn[1]))
        room = self._context - around - self._spec.max_answer_tokens
        if room < 1:
            raise PromptTooLong("the prompt leaves the edge model no room for a message")
        messages = expected_messages(
            self._edge,
            self._tokenizer,
            turn,
            count=count,
            varied=varied,
            max_tokens=min(48, room),
        )
        return self._fitting(messages, system, tools)

    def _probe(
        self,
        system: Sequence[Mapping[str, str]],
        tools: Sequence[Tool],
        question: str,
        answer: str | None,
    ) -> Probe:
        chat = [{"role": "user", "content": question}]
        prompted = self._own.try_render([*system, *chat], tools=[tool.body() for tool in tools])
        if prompted is None:
            raise InvalidRequest("the edge model's chat template refuses the prompt")
        probe = Probe(
            prompted=self._encode(prompted),
            bare=self._encode(self._compiled.render(chat)),
            answer=None if answer is None else [*self._encode(answer), self._end_id],
        )
        needed = len(probe.prompted) + max(len(probe.answer or ()), self._spec.max_answer_tokens)
        if needed > self._context:
            raise PromptTooLong(
                f"a probe needs {needed} tokens with the prompt and its answer; the edge model "
                f"reads {self._context}",
                param="probes",
            )
        return probe

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if max(ids, default=0) >= self._edge.vocabulary:
            raise InvalidRequest("the text holds a token that the edge model does not have")
        return ids

    def _end_of_answers(self) -> int:
        """Return the end token that the chat template prints behind an answer, else the first."""
        ends = self._edge.end_ids
        first = self._encode(behind_answer(self._own).lstrip())[:1]
        return first[0] if first and first[0] in ends else ends[0]


def _require_enough(messages: Sequence[str]) -> None:
    different = len(set(messages))
    if different < MIN_PROBES:
        raise InvalidRequest(
            f"the edge model expects {different} different messages under this prompt, and "
            f"{MIN_PROBES} are the least: give probes",
            param="probes",
        )
