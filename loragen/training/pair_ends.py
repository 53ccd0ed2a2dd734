"""Pair ends: the tokens of prompts at which a pair is complete, and the readout that finds them."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from torch.nn import functional

from loragen.method.pair_reader import PairReader
from loragen.suite.pairs import pairs_of
from loragen.suite.splits import Prompt
from loragen.training.progress import Progress
from loragen.training.word_vectors import WordVectors

logger = logging.getLogger(__name__)

_OTHERS: Final = 4
"""Tokens that end no pair beside each that does, and in prompts without one."""

_AT_ONCE: Final = 512
_WHERE_WEIGHT: Final = 2.0
"""Weight of where pairs end against what their words are."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Tokens of prompts: states [N, S], whether a pair ends (1 or 0) [N], and its words' vectors.

    keys, values [N, V]; 0 where no pair ends.
    """

    states: torch.Tensor
    is_end: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


def ends_of(
    prompt: Prompt,
    text: str,
    offsets: list[tuple[int, int]],
    states_PS: torch.Tensor,
    vectors: WordVectors,
    rng: Random,
) -> Ends | None:
    """Return pair ends of one prompt with some other tokens, None where words cannot be told apart.

    `text` is the rendered prompt, `offsets` where its tokens begin and end in it. A value of
    several words ends at each of them with its part: the state there holds no more for sure.
    """
    ends: dict[int, tuple[str, torch.Tensor]] = {}
    for key, value in pairs_of(prompt):
        at_keys, at_values = (_places_of(word, text) for word in (key, value))
        if len(at_values) != 1 or len(at_keys) > 1 or ("table" in prompt.values and not at_keys):
            return None
        key_ends = [start + len(key) for start in at_keys]
        for part_end, vector in vectors.parts(value):
            end = _token_before(max([*key_ends, at_values[0] + part_end]), offsets)
            other, sofar = ends.get(end, (key, torch.zeros_like(vector)))
            if other != key:
                return None
            ends[end] = (key, sofar + vector)
    rest = [token for token in range(len(offsets)) if token not in ends]
    others = rng.sample(rest, min(len(rest), _OTHERS * (len(ends) + 1)))
    none = states_PS.new_zeros(len(others), vectors.size)
    keys = [vectors(key) for key, _ in ends.values()]
    values = [value for _, value in ends.values()]
    return Ends(
        states=states_PS[[*ends, *others]],
        is_end=torch.tensor([1.0] * len(ends) + [0.0] * len(others)),
        keys=torch.cat([torch.stack(keys), none]) if keys else none,
        values=torch.cat([torch.stack(values), none]) if values else none,
    )


def join(parts: list[Ends]) -> Ends:
    """Return the tokens of several prompts as one."""
    return Ends(
        states=torch.cat([part.states for part in parts]),
        is_end=torch.cat([part.is_end for part in parts]),
        keys=torch.cat([part.keys for part in parts]),
        values=torch.cat([part.values for part in parts]),
    )


def fit_readout(reader: PairReader, ends: Ends, epochs: int, rate: float, seed: int) -> None:
    """Teach a pair reader's readout what ends are, and their words."""
    optimizer = torch.optim.AdamW([*reader.readout_parameters()], lr=rate, weight_decay=1e-3)
    at_once = min(_AT_ONCE, len(ends.is_end))
    steps = epochs * (len(ends.is_end) // at_once)
    progress = Progress(logger, "pairs ends", steps)
    for step, chosen in zip(range(steps), _batches(len(ends.is_end), at_once, seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * max(0.03, 1 - step / steps)
        loss = _readout_loss(reader, ends, chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.add(step, loss.item())


def _batches(tokens: int, at_once: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield whole batches of token numbers for ever, every one once before any twice."""
    order = torch.Generator().manual_seed(seed)
    while True:
        whole = torch.randperm(tokens, generator=order)[: tokens // at_once * at_once]
        yield from whole.split(at_once)


def _readout_loss(reader: PairReader, ends: Ends, chosen: torch.Tensor) -> torch.Tensor:
    logits, keys, values = reader.read(ends.states[chosen])
    is_end = ends.is_end[chosen]
    weights = (is_end / is_end.sum().clamp(min=1.0))[:, None]
    wrong_keys = ((keys - ends.keys[chosen]).square() * weights).sum() / keys.shape[-1]
    wrong_values = ((values - ends.values[chosen]).square() * weights).sum() / values.shape[-1]
    where = functional.binary_cross_entropy_with_logits(logits, is_end)
    return _WHERE_WEIGHT * where + wrong_keys + wrong_values


def _places_of(word: str, text: str) -> list[int]:
    """Return where a word starts, each time that the text has it."""
    last = r"(?!\w)" if word[-1].isalnum() else ""
    return [found.start() for found in re.finditer(rf"(?<!\w){re.escape(word)}{last}", text)]


def _token_before(end: int, offsets: list[tuple[int, int]]) -> int:
    """Return the token that holds the character before a place."""
    return max(token for token, (start, stop) in enumerate(offsets) if start < end <= stop)
