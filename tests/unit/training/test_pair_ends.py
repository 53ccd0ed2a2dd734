"""Pair ends are found where both words of a pair have been read."""

from random import Random

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from loragen.suite.pairs import pairs_of
from loragen.suite.splits import Prompt, Split
from loragen.suite.tenants import TENANTS
from loragen.training.batches import Renderer
from loragen.training.pair_ends import Ends, ends_of
from loragen.training.pretrain import EdgeSize, new_model
from loragen.training.tokenizer import train_tokenizer
from loragen.training.word_vectors import WordVectors

FAMILIES = {family.name: family for family in TENANTS.seen}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(TENANTS, 2048, seed=0)


@pytest.fixture(scope="module")
def vectors(tokenizer: PreTrainedTokenizerBase) -> WordVectors:
    torch.manual_seed(0)
    edge = new_model(tokenizer, EdgeSize(hidden=32, layers=2, heads=1, intermediate=48))
    return WordVectors(edge, tokenizer)


def find(
    values: dict[str, str],
    rule: str,
    family: str,
    tokenizer: PreTrainedTokenizerBase,
    vectors: WordVectors,
) -> tuple[list[str], Ends | None]:
    """Return the words at which pairs of a prompt end, by states that number the tokens."""
    prompt = Prompt(FAMILIES[family], values, rule, rule)
    (text,) = Renderer(tokenizer).prompt_texts([rule])
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    numbers = torch.arange(len(offsets), dtype=torch.float32)[:, None]
    ends = ends_of(prompt, text, offsets, numbers, vectors, Random(0))
    if ends is None:
        return [], None
    tokens = ends.states[ends.is_end == 1, 0].int().tolist()
    return [text[slice(*offsets[token])].strip() for token in tokens], ends


def test_a_pair_ends_with_its_later_word(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors
) -> None:
    table = {"table": "sofa=beta;cello=golden"}
    words, ends = find(
        table, "Words: sofa is beta, golden for cello.", "glossary", tokenizer, vectors
    )
    assert words == ["beta", "cello"]
    assert ends is not None
    torch.testing.assert_close(ends.keys[:2], vectors.stack(["sofa", "cello"]))
    torch.testing.assert_close(ends.values[:2], vectors.stack(["beta", "golden"]))
    assert not ends.keys[2:].any()
    assert not ends.values[2:].any()


def test_a_key_that_is_no_word_of_the_prompt_ends_at_its_value(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors
) -> None:
    values = {"topic": "press", "name": "Zoe", "other": "Gus"}
    words, _ = find(
        values, "Zoe helps with press. Gus helps with the rest.", "handoff", tokenizer, vectors
    )
    assert words == ["press", "Gus"]


def test_words_that_cannot_be_told_apart_teach_nothing(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors
) -> None:
    table = {"table": "sofa=beta;beta=golden"}
    assert find(table, "sofa is beta, beta is golden", "glossary", tokenizer, vectors) == ([], None)


def test_a_prompt_without_pairs_teaches_where_none_ends(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors
) -> None:
    words, ends = find(
        {"mark": "ivory"}, "Every order ends with ivory!", "closing", tokenizer, vectors
    )
    assert words == []
    assert ends is not None
    assert len(ends.states) > 0


@pytest.mark.parametrize("family", [family.name for family in TENANTS.seen])
def test_values_of_pairs_are_words_of_the_prompt(family: str) -> None:
    for index in range(20):
        prompt = TENANTS.draw(FAMILIES[family], Split.TRAIN, index)
        keys = [key for key, _ in pairs_of(prompt)]
        assert len(set(keys)) == len(keys)
        assert all(value in prompt.rule for _, value in pairs_of(prompt))
