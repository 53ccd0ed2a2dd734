"""Batches: suite prompts as token ids, laid out so that one prompt serves several questions.

Every id comes from rendering the compiled template, so training reads exactly what serving sends. A
row is one prompt and Q independent segments (question and answer, sometimes two turns of them);
targets are set on answer tokens and the end of turn, everything else is ignored.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerBase

from loragen.suite.family import Family, Turn
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.suite.table import row_count
from loragen.template import CompiledTemplate
from loragen.training.tokenizer import ASSISTANT, BOS, COMPILED_TEMPLATE, END, PAD

IGNORED: Final = -100
_CHUNK: Final = 8
"""Batches drawn together and sorted by length, to pad little."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and the turns of each of its segments."""

    prompt: str
    segments: tuple[tuple[Turn, ...], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of rows. `bare` [B, Q] marks segments that see no prompt and answer the default.

    prompts [B, P]: <s>, then the system turn, padded right. segments [B, Q, S]: user and assistant
    turns without <s>. targets [B, Q, S]: the next token where an answer has it, else IGNORED.
    """

    prompts: torch.Tensor
    segments: torch.Tensor
    targets: torch.Tensor
    bare: torch.Tensor


class Renderer:
    """Turns suite text into token ids through the chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.template = CompiledTemplate(COMPILED_TEMPLATE)
        self.pad_id, self.bos_id, self._end_id, self._assistant_id = (
            tokenizer.get_vocab()[token] for token in (PAD, BOS, END, ASSISTANT)
        )

    def prompt_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of <s> and a system turn, for each prompt."""
        return self.encode(self.prompt_texts(texts))

    def prompt_texts(self, texts: Sequence[str]) -> list[str]:
        """Return <s> and a system turn, for each prompt."""
        return [
            self.template.render([{"role": "system", "content": text}], add_generation_prompt=False)
            for text in texts
        ]

    def segment_ids(self, segments: Sequence[Sequence[tuple[str, str]]]) -> list[list[int]]:
        """Return the ids of question and answer turns, without <s>."""
        texts = []
        for segment in segments:
            messages = [
                {"role": role, "content": text}
                for question, answer in segment
                for role, text in (("user", question), ("assistant", answer))
            ]
            texts.append(self.template.render(messages, add_generation_prompt=False))
        return [ids[1:] for ids in self.encode(texts)]

    def targets(self, segment: Sequence[int]) -> list[int]:
        """Return the next token at each position that an assistant turn decides, else IGNORED."""
        targets = []
        answering = False
        for token, following in zip(segment, [*segment[1:], IGNORED], strict=True):
            if token == self._assistant_id:
                answering = True
            elif token == self._end_id:
                answering = False
            targets.append(following if answering else IGNORED)
        return targets

    def batch(self, rows: Sequence[Row], bare: Sequence[Sequence[bool]]) -> Batch:
        """Pad rows into one batch; a bare segment gets the default answers."""
        segments = self.segment_ids(
            [
                [(turn.question, turn.default if is_bare else turn.answer) for turn in segment]
                for row, flags in zip(rows, bare, strict=True)
                for segment, is_bare in zip(row.segments, flags, strict=True)
            ]
        )
        shape = (len(rows), len(rows[0].segments), -1)
        targets = [self.targets(segment) for segment in segments]
        return Batch(
            prompts=pad(self.prompt_ids([row.prompt for row in rows]), self.pad_id),
            segments=pad(segments, self.pad_id).view(shape),
            targets=pad(targets, IGNORED).view(shape),
            bare=torch.tensor(bare, dtype=torch.bool),
        )

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of texts as they are."""
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return encoded


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a training stream holds."""

    catalogue: Catalogue
    rows: int = 32
    segments: int = 6
    bare_share: float = 0.15
    """Share of segments that see no prompt."""
    plain_share: float = 0.05
    """Share of rows whose prompt has no rule."""
    short_share: float = 0.0
    """Share of rows whose prompt is its rule alone."""
    binding_share: float = 0.0
    """Share of rows that are drawn from the catalogue's binding families alone."""
    bindings: tuple[str, ...] = ()
    """Names of those families; all of them if empty."""
    two_turn_share: float = 0.08
    most_rows: int | None = None
    """Most rows of a table; any number if None."""
    prompts_per_family: int = 20_000


def turns_and_prompt_length(row: Row) -> tuple[int, int]:
    """Order of rows whose prompts and segments are read apart."""
    return len(row.segments[0]), len(row.prompt)


def text_length(row: Row) -> int:
    """Order of rows whose prompts and segments are read as one text."""
    turns = [turn for segment in row.segments for turn in segment]
    return len(row.prompt) + sum(len(turn.question) + len(turn.answer) for turn in turns)


def training_batches(renderer: Renderer, spec: StreamSpec, seed: str) -> Iterator[Batch]:
    """Yield batches of training prompts for ever."""
    rng = Random(seed)
    while True:
        yield from _chunk(renderer, spec, rng, turns_and_prompt_length)


def resumable_batches(
    renderer: Renderer,
    spec: StreamSpec,
    seed: str,
    start: int,
    order: Callable[[Row], Any] = text_length,
) -> Iterator[Batch]:
    """Yield training batch number `start` and those after it; each follows from seed and number.

    Rows of one batch are neighbours in `order`.
    """
    skipped = start % _CHUNK
    for number in count(start // _CHUNK):
        batches = _chunk(renderer, spec, Random(f"{seed}/{number}"), order)
        yield from islice(batches, skipped, None)
        skipped = 0


def evaluation_row(prompt: Prompt, segments: int, rng: Random) -> Row:
    """Return a prompt with freshly drawn single-turn segments."""
    return Row(prompt.text, tuple((prompt.ask(rng),) for _ in range(segments)))


def _chunk(
    renderer: Renderer, spec: StreamSpec, rng: Random, order: Callable[[Row], Any]
) -> Iterator[Batch]:
    """Yield batches of rows that are neighbours in some order."""
    rows = [_training_row(spec, rng) for _ in range(spec.rows * _CHUNK)]
    rows.sort(key=order)
    chunks = [rows[start : start + spec.rows] for start in range(0, len(rows), spec.rows)]
    rng.shuffle(chunks)
    for chunk in chunks:
        bare = [[rng.random() < spec.bare_share for _ in row.segments] for row in chunk]
        yield renderer.batch(chunk, bare)


def _training_row(spec: StreamSpec, rng: Random) -> Row:
    catalogue = spec.catalogue
    is_binding = spec.binding_share > 0 and rng.random() < spec.binding_share
    family = rng.choice(_binding(spec) if is_binding else catalogue.weighted(catalogue.seen))
    prompt = _training_prompt(spec, family, rng)
    turns = 2 if rng.random() < spec.two_turn_share else 1
    segments = [tuple(prompt.ask(rng) for _ in range(turns)) for _ in range(spec.segments)]
    if rng.random() >= spec.plain_share:
        is_short = spec.short_share > 0 and rng.random() < spec.short_share
        return Row(prompt.rule if is_short else prompt.text, tuple(segments))
    unruled = [tuple(Turn(t.question, t.default, t.default) for t in turns) for turns in segments]
    return Row(
        catalogue.surround("", rng).strip() or "You are a helpful assistant.", tuple(unruled)
    )


def _binding(spec: StreamSpec) -> list[Family]:
    families = spec.catalogue.binding
    if spec.bindings:
        families = tuple(family for family in families if family.name in spec.bindings)
    return spec.catalogue.weighted(families)


def _training_prompt(spec: StreamSpec, family: Family, rng: Random) -> Prompt:
    while True:
        index = rng.randrange(spec.prompts_per_family)
        prompt = spec.catalogue.draw(family, Split.TRAIN, index)
        if spec.most_rows is None or row_count(prompt.values) <= spec.most_rows:
            return prompt


def pad(sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Return sequences as one [N, longest] tensor, padded right."""
    longest = max(map(len, sequences))
    return torch.tensor([[*ids, *[value] * (longest - len(ids))] for ids in sequences])
