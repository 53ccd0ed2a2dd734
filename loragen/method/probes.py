"""Probes: messages to one task, on which its recipe is fitted or measured against its prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from loragen.method.edge import EdgeModel
from loragen.method.greedy import greedy, read_prefix, shared_length

_IGNORED: Final = -100
BATCH_TOKENS: Final = 8_192
"""Padded tokens that the edge model reads at once, at most: memory does not follow the probes."""

Chat = tuple[Sequence[int], Sequence[int]]
"""A question, up to where the answer starts, and the answer."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A message as token ids, up to where the answer starts.

    `prompted` holds the system prompt, `bare` does not; `answer` is what to say, with its end
    token, or None for what the edge model says to `prompted`: then `is_own`, once it has said it.
    """

    prompted: Sequence[int]
    bare: Sequence[int]
    answer: Sequence[int] | None = None
    is_own: bool = False


def answered(edge: EdgeModel, probes: Sequence[Probe], *, max_tokens: int = 64) -> list[Probe]:
    """Return the probes, each with an answer: its own, or the edge model's under the prompt."""
    unanswered = [probe.prompted for probe in probes if probe.answer is None]
    said = iter(answers(edge, unanswered, max_tokens=max_tokens))
    return [
        Probe(probe.prompted, probe.bare, next(said), is_own=True)
        if probe.answer is None
        else probe
        for probe in probes
    ]


def answers(
    edge: EdgeModel,
    questions: Sequence[Sequence[int]],
    gates_LMR: torch.Tensor | None = None,
    *,
    max_tokens: int,
) -> list[list[int]]:
    """Return greedy answers, all under the same gates; with the end token where they got to it."""
    said: list[list[int]] = []
    for rows in batches(edge, [len(question) + max_tokens for question in questions]):
        gates = None if gates_LMR is None else gates_LMR.expand(len(rows), -1, -1, -1)
        asked = [questions[row] for row in rows]
        said += greedy(edge, asked, gates, max_tokens=max_tokens)
    return said


def batches(edge: EdgeModel, lengths: Sequence[int]) -> Iterator[range]:
    """Yield rows of these lengths in order, as many at once as may be padded to one length."""
    most = min(BATCH_TOKENS, edge.cache_tokens)
    start, longest = 0, 0
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        if row > start and longest * (row + 1 - start) > most:
            yield range(start, row)
            start, longest = row, length
    if lengths:
        yield range(start, len(lengths))


def answer_losses(
    edge: EdgeModel,
    chats: Sequence[Chat],
    gates_BLMR: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return, per chat of a question and an answer, the answer's negative log-likelihood [B].

    It is the mean over the answer's tokens, in nats. Where neither gates nor gradients are asked
    for, what all questions begin with alike is read once.
    """
    logits, targets_BT = _answer_logits(edge, chats, gates_BLMR)
    chosen_BT = targets_BT != _IGNORED
    losses = functional.cross_entropy(logits, targets_BT[chosen_BT], reduction="none")
    sums_BT = torch.zeros(targets_BT.shape).masked_scatter(chosen_BT, losses)
    return sums_BT.sum(1) / chosen_BT.sum(1)


@torch.inference_mode()
def are_said(
    edge: EdgeModel, chats: Sequence[Chat], gates_BLMR: torch.Tensor | None = None
) -> torch.Tensor:
    """Return, per chat, whether its answer is what greedy generation says [B].

    One pass tells: up to its first wrong token an answer is read as it would be said.
    """
    logits, targets_BT = _answer_logits(edge, chats, gates_BLMR)
    chosen_BT = targets_BT != _IGNORED
    right_BT = ~chosen_BT
    right_BT[chosen_BT] = logits.argmax(-1) == targets_BT[chosen_BT]
    return right_BT.all(1)


def _answer_logits(
    edge: EdgeModel, chats: Sequence[Chat], gates_BLMR: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits [N, V] of all answers' tokens, and where [B, T] each is which token."""
    reads_once = gates_BLMR is None and not torch.is_grad_enabled() and edge.keeps_all
    shared = shared_length([question for question, _ in chats]) if reads_once else 0
    longest = max(len(question) + len(answer) for question, answer in chats) - shared
    ids_BT = torch.zeros(len(chats), longest, dtype=torch.long)
    targets_BT = torch.full((len(chats), longest), _IGNORED)
    for row, (question, answer) in enumerate(chats):
        own = [*question[shared:], *answer]
        ids_BT[row, : len(own)] = torch.tensor(own)
        targets_BT[row, len(own) - len(answer) - 1 : len(own) - 1] = torch.tensor(answer)
    if shared:
        cache = read_prefix(edge, chats[0][0][:shared], len(chats))
        states_BTD = edge.go_on(ids_BT, cache)
    else:
        states_BTD = edge.states(ids_BT, gates_BLMR)
    logits = edge.head(states_BTD[targets_BT != _IGNORED])
    return logits, targets_BT
