"""The judge: holds replies to the oracle, token by token."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tests.differential.asks import TOP_K, Ask
from tests.differential.client import Answer, Reply
from tests.differential.grammar import END, Grammar
from tests.differential.oracle import Oracle

TOLERANCE: Final = 1e-3
"""Of log-probabilities in float32, and of what may pass for the most likely token in a tie."""
_LEAST_LOGPROB: Final = -9999.0
"""What vLLM says in place of minus infinity, which JSON does not have."""

Case = tuple[Ask, Reply]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A reply that is not what the oracle says, and why."""

    number: int
    reason: str


@dataclass(slots=True)
class Verdict:
    """What was compared, and what did not agree."""

    mismatches: list[Mismatch] = field(default_factory=list)
    tokens: int = 0
    logprobs: int = 0
    largest_error: float = 0.0
    """Of a log-probability."""


class Judge:
    """Judges replies of one model's workers."""

    def __init__(self, oracle: Oracle, tokenizer: PreTrainedTokenizerBase) -> None:
        self._oracle = oracle
        self.tokenizer = tokenizer
        self._end: int = tokenizer.eos_token_id

    def judge(self, cases: Sequence[Case], on_cases: Callable[[int], None]) -> Verdict:
        """Judge all replies, recipe by recipe; `on_cases` is told how many were done."""
        verdict = Verdict()
        for group in _by_recipe(cases):
            self._judge_group(group, verdict)
            on_cases(len(group))
        verdict.mismatches.sort(key=lambda mismatch: mismatch.number)
        return verdict

    def _judge_group(self, group: Sequence[Case], verdict: Verdict) -> None:
        answered = [(ask, reply) for ask, reply in group if reply.failure is None]
        texts = [
            [*ask.prompt, *answer.tokens] for ask, reply in answered for answer in reply.answers
        ]
        logits = iter(self._oracle.logits(group[0][0].recipe, texts))
        for ask, reply in group:
            if reply.failure is not None:
                verdict.mismatches.append(Mismatch(ask.number, reply.failure))
                continue
            faults = [
                fault
                for answer, logits_TV in zip(reply.answers, logits, strict=False)
                for fault in self._faults(ask, reply, answer, logits_TV, verdict)
            ]
            faults += _usage_faults(ask, reply)
            verdict.mismatches += [Mismatch(ask.number, fault) for fault in faults[:1]]

    def _faults(
        self, ask: Ask, reply: Reply, answer: Answer, logits_TV: Tensor, verdict: Verdict
    ) -> Iterator[str]:
        """Say what is wrong with an answer, given the logits after each token of all its text."""
        read = len(ask.prompt)
        scores_TV = logits_TV[read - 1 : -1].log_softmax(-1)
        if ask.grammar:
            scores_TV = scores_TV + self._mask(ask.grammar, answer.tokens, scores_TV)
            scores_TV = scores_TV.log_softmax(-1)  # the engine renormalises what it allows
        yield from _token_faults(ask, answer, scores_TV)
        yield from self._end_faults(ask, reply, answer)
        verdict.tokens += len(answer.tokens)
        if ask.logprobs is not None:
            yield from _logprob_faults("answer", answer.tokens, answer.logprobs, scores_TV, verdict)
        if reply.prompt_logprobs is not None:
            scores_TV = logits_TV[: read - 1].log_softmax(-1)
            given = reply.prompt_logprobs
            yield from _logprob_faults("prompt", ask.prompt[1:], given, scores_TV, verdict)

    def _mask(self, grammar: Grammar, tokens: Sequence[int], like: Tensor) -> Tensor:
        """Return 0 where the grammar allows a token, else -inf."""
        mask = torch.full_like(like, -torch.inf)
        text = ""
        for row, token in zip(mask, tokens, strict=True):
            allowed = [self._id(char) for char in grammar.allowed(text)]
            row[allowed] = 0
            text += str(self.tokenizer.decode([token]))
        return mask

    def _id(self, char: str) -> int:
        return self._end if char == END else self.tokenizer(char)["input_ids"][0]

    def _end_faults(self, ask: Ask, reply: Reply, answer: Answer) -> Iterator[str]:
        length, reason = len(answer.tokens), answer.finish_reason
        if length > ask.max_tokens:
            yield f"{length} tokens, asked for {ask.max_tokens}"
        if reply.has_left:
            return
        ends = bool(answer.tokens) and answer.tokens[-1] == self._end and not ask.ignores_end
        expected = "stop" if ends else "length"
        if reason != expected or (reason == "length" and length != ask.max_tokens):
            yield f"ended by {reason!r} after {length} of {ask.max_tokens} tokens"
        if not ask.ignores_end and self._end in answer.tokens[:-1]:
            yield "goes on after the end"


def _by_recipe(cases: Sequence[Case]) -> list[list[Case]]:
    groups: dict[str | None, list[Case]] = {}
    for ask, reply in cases:
        groups.setdefault(ask.recipe.id if ask.recipe else None, []).append((ask, reply))
    return list(groups.values())


def _token_faults(ask: Ask, answer: Answer, scores_TV: Tensor) -> Iterator[str]:
    places = TOP_K if ask.sampling == "seeded" else 1
    bounds_T = scores_TV.topk(places).values[:, -1] - TOLERANCE
    for position, token in enumerate(answer.tokens):
        score = float(scores_TV[position, token])
        if not score >= bounds_T[position]:
            yield (
                f"token {position}: {token} at {score:.4f} is not among the {places} most likely, "
                f"from {int(scores_TV[position].argmax())} at {scores_TV[position].max():.4f}"
            )
            return


def _logprob_faults(
    of: str,
    tokens: Sequence[int],
    logprobs: Sequence[dict[int, float]],
    scores_TV: Tensor,
    verdict: Verdict,
) -> Iterator[str]:
    if len(logprobs) != len(tokens):
        yield f"{len(logprobs)} log-probabilities of {len(tokens)} tokens of the {of}"
        return
    for position, (token, step) in enumerate(zip(tokens, logprobs, strict=True)):
        if token not in step:
            yield f"{of} token {position}: no log-probability of {token}"
            return
        for each, logprob in step.items():
            error = abs(logprob - max(float(scores_TV[position, each]), _LEAST_LOGPROB))
            verdict.logprobs += 1
            if not error <= TOLERANCE:
                yield f"{of} token {position}: log-probability of {each} is off by {error:.4f}"
                return
            verdict.largest_error = max(verdict.largest_error, error)


def _usage_faults(ask: Ask, reply: Reply) -> Iterator[str]:
    if reply.has_left:
        return
    usage: dict[str, Any] = reply.usage or {}
    if usage.get("prompt_tokens") != len(ask.prompt):
        yield f"read {usage.get('prompt_tokens')} tokens, sent {len(ask.prompt)}"
    if usage.get("completion_tokens") != sum(len(answer.tokens) for answer in reply.answers):
        yield f"{usage.get('completion_tokens')} tokens counted, another number received"
