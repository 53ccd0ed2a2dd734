"""The differential test sees what it looks for: its judge passes the oracle's own answers only."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.differential.asks import Ask, AskDrawer
from tests.differential.client import Answer, Reply
from tests.differential.grammar import END, Choice, Pattern
from tests.differential.judge import TOLERANCE, Judge
from tests.differential.oracle import Oracle
from tests.fakes.tiny import TinyEdge

TOKENS = 4
GRAMMAR = Choice(("red", "redder"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def oracle(tiny: TinyEdge) -> Oracle:
    return Oracle(tiny.model, tiny.pool)


@pytest.fixture(scope="module")
def judge(tiny: TinyEdge, oracle: Oracle) -> Judge:
    return Judge(oracle, AutoTokenizer.from_pretrained(tiny.model))


@pytest.fixture(scope="module")
def ask(tiny: TinyEdge) -> Ask:
    drawn = AskDrawer(tiny, max_model_len=64, seed="judge").draw(0)
    return replace(
        drawn,
        recipe=tiny.recipe(1),
        sampling="greedy",
        answers=1,
        max_tokens=TOKENS,
        logprobs=0,
        prompt_logprobs=True,
        grammar=None,
        ignores_end=True,
    )


@pytest.fixture
def reply(oracle: Oracle, ask: Ask) -> Reply:
    """Return what the oracle answers, as a client would have it."""
    text = list(ask.prompt)
    for _ in range(TOKENS):
        (logits_TV,) = oracle.logits(ask.recipe, [text])
        text.append(int(logits_TV[-1].argmax()))
    scores_TV = oracle.logits(ask.recipe, [text])[0].log_softmax(-1)
    scores = [
        {token: float(row[token])} for token, row in zip(text[1:], scores_TV[:-1], strict=True)
    ]
    read = len(ask.prompt)
    return Reply(
        answers=[Answer(text[read:], scores[read - 1 :], "length")],
        usage={"prompt_tokens": read, "completion_tokens": TOKENS},
        prompt_logprobs=scores[: read - 1],
    )


def faults(judge: Judge, ask: Ask, reply: Reply) -> list[str]:
    verdict = judge.judge([(ask, reply)], lambda _: None)
    return [mismatch.reason for mismatch in verdict.mismatches]


def test_the_oracles_own_answer_passes(judge: Judge, ask: Ask, reply: Reply) -> None:
    assert faults(judge, ask, reply) == []


def test_another_recipe_and_none_are_found(
    judge: Judge, ask: Ask, reply: Reply, tiny: TinyEdge
) -> None:
    for recipe in (None, tiny.recipe(2), tiny.recipe(1, scale=0.0)):
        assert faults(judge, replace(ask, recipe=recipe), reply)


def other_token(reply: Reply) -> None:
    reply.answers[0].tokens[1] ^= 1


def other_logprob(reply: Reply) -> None:
    (token,) = reply.answers[0].logprobs[2]
    reply.answers[0].logprobs[2][token] += 3 * TOLERANCE


def no_logprob(reply: Reply) -> None:
    reply.answers[0].logprobs.pop()


def not_a_number(reply: Reply) -> None:
    reply.answers[0].logprobs[0] = dict.fromkeys(reply.answers[0].logprobs[0], float("nan"))


def other_prompt_logprob(reply: Reply) -> None:
    assert reply.prompt_logprobs
    reply.prompt_logprobs[0] = dict.fromkeys(reply.prompt_logprobs[0], -99.0)


def lost_token(reply: Reply) -> None:
    reply.answers[0].tokens.pop()
    reply.answers[0].logprobs.pop()


def other_end(reply: Reply) -> None:
    reply.answers[0].finish_reason = "abort"


def other_count(reply: Reply) -> None:
    reply.usage = {"prompt_tokens": 1, "completion_tokens": TOKENS}


def failed(reply: Reply) -> None:
    reply.failure = "500"


@pytest.mark.parametrize(
    "spoil",
    [
        other_token,
        other_logprob,
        no_logprob,
        not_a_number,
        other_prompt_logprob,
        lost_token,
        other_end,
        other_count,
        failed,
    ],
)
def test_whatever_is_spoiled_is_found(
    judge: Judge, ask: Ask, reply: Reply, spoil: Callable[[Reply], None]
) -> None:
    spoil(reply)
    assert len(faults(judge, ask, reply)) == 1


def test_what_a_client_got_before_it_left_must_be_right(
    judge: Judge, ask: Ask, reply: Reply
) -> None:
    reply.usage, reply.has_left = None, True
    lost_token(reply)
    assert faults(judge, ask, reply) == []
    other_token(reply)
    assert faults(judge, ask, reply)


def test_within_a_grammar_the_likeliest_allowed_token_is_right(
    judge: Judge, ask: Ask, oracle: Oracle
) -> None:
    within = replace(
        ask, sampling="top one", grammar=GRAMMAR, logprobs=None, ignores_end=False, max_tokens=20
    )
    tokenizer = judge.tokenizer
    after = [*ask.prompt, *tokenizer("red")["input_ids"]]
    (logits_TV,) = oracle.logits(ask.recipe, [after])
    longer, end = tokenizer("d")["input_ids"][0], tokenizer.eos_token_id
    texts = {"redder": tokenizer("redder")["input_ids"] + [end], "red": [*after[-3:], end]}
    right = "redder" if logits_TV[-1, longer] > logits_TV[-1, end] else "red"
    for text, tokens in texts.items():
        usage = {"prompt_tokens": len(ask.prompt), "completion_tokens": len(tokens)}
        found = faults(judge, within, Reply([Answer(tokens, [], "stop")], usage))
        assert bool(found) == (text != right)


@pytest.mark.parametrize(
    ("text", "allowed"), [("", {"r"}), ("red", {"d", END}), ("redder", {END}), ("green", set())]
)
def test_a_choice_says_what_may_follow(text: str, allowed: set[str]) -> None:
    assert GRAMMAR.allowed(text) == allowed


def test_a_pattern_says_what_may_follow() -> None:
    pattern = Pattern(("abc", "-"))
    regex = pattern.fields()["structured_outputs"]["regex"]
    assert pattern.allowed("") == set("abc")
    assert pattern.allowed("b-") == {END}
    assert pattern.allowed("b-c") == pattern.allowed("x") == set()
    assert re.fullmatch(regex, "b-")


def test_an_ask_is_the_same_whenever_it_is_drawn(tiny: TinyEdge) -> None:
    def drawn(number: int) -> Any:
        return AskDrawer(tiny, max_model_len=64, seed=1).draw(number)

    first = [drawn(number) for number in range(20)]
    assert first == [drawn(number) for number in range(20)]
    assert all(len(ask.prompt) + ask.max_tokens <= 64 for ask in first)


def test_the_oracle_gives_a_batch_what_it_gives_each_alone(oracle: Oracle, tiny: TinyEdge) -> None:
    texts = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    for text, logits_TV in zip(texts, oracle.logits(tiny.recipe(3), texts), strict=True):
        alone_TV = oracle.logits(tiny.recipe(3), [text])[0]
        torch.testing.assert_close(logits_TV, alone_TV, rtol=1e-4, atol=1e-4)
