"""Drill rows are tables whose questions have one right answer."""

import re
from random import Random

import pytest
from transformers import PreTrainedTokenizerBase

from loragen.suite.small import SMALL
from loragen.training.batches import IGNORED, Renderer
from loragen.training.drill import STYLES, Drill, Style
from loragen.training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(SMALL, 2048, seed=0)


@pytest.fixture(scope="module")
def drill(tokenizer: PreTrainedTokenizerBase) -> Drill:
    return Drill(tokenizer, SMALL.words, rows=8, questions=4)


@pytest.mark.parametrize("style", STYLES)
def test_a_batch_is_a_function_of_its_seed(drill: Drill, style: Style) -> None:
    first, again = (drill.batch(style, 32, Random(5)) for _ in range(2))
    assert first.prompts.equal(again.prompts)
    assert first.segments.equal(again.segments)
    assert not first.prompts.equal(drill.batch(style, 32, Random(6)).prompts)


def test_bare_pairs_answer_with_the_word_behind_the_key(drill: Drill) -> None:
    batch = drill.batch(STYLES[0], 32, Random(0))
    for prompt, segments, targets in zip(
        batch.prompts.tolist(), batch.segments.tolist(), batch.targets.tolist(), strict=True
    ):
        for segment, target in zip(segments, targets, strict=True):
            key, value = segment[:2]
            assert prompt[prompt.index(key) + 1] == value
            assert target == [value, IGNORED]


def test_chats_are_what_the_template_renders(
    drill: Drill, tokenizer: PreTrainedTokenizerBase
) -> None:
    renderer = Renderer(tokenizer)
    batch = drill.batch(Style(pairs=(2, 3), link=(1, 1), ask=(1, 1)), 32, Random(0))
    for prompt, segments, targets in zip(
        batch.prompts.tolist(), batch.segments.tolist(), batch.targets.tolist(), strict=True
    ):
        text = str(tokenizer.decode([token for token in prompt if token != renderer.pad_id]))
        content = text.removeprefix("<s><|system|>").removesuffix("<|end|>")
        assert renderer.prompt_ids([content])[0] == [t for t in prompt if t != renderer.pad_id]
        for segment, target in zip(segments, targets, strict=True):
            ids = [token for token in segment if token != renderer.pad_id]
            assert renderer.targets(ids) == target[: len(ids)]


def test_questions_are_answered_by_the_table(
    drill: Drill, tokenizer: PreTrainedTokenizerBase
) -> None:
    batch = drill.batch(Style(pairs=(3, 3), link=(1, 1)), 32, Random(1))
    for prompt, segments, targets in zip(
        batch.prompts.tolist(), batch.segments.tolist(), batch.targets.tolist(), strict=True
    ):
        text = str(tokenizer.decode(prompt, skip_special_tokens=True))
        table = re.findall(r"\w+", text)
        for segment, target in zip(segments, targets, strict=True):
            key = tokenizer.decode(segment[1:2])
            value = tokenizer.decode([t for t in target if t != IGNORED][:1])
            assert key in table
            assert value in table
