"""Pair ends are found where both words of a pair have been read."""

from random import Random

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from loragen.errors import ConfigError
from loragen.method.pair_reader import PairReader
from loragen.suite.pairs import pairs_of
from loragen.suite.splits import Prompt, Split
from loragen.suite.tenants import TENANTS
from loragen.training.batches import Renderer
from loragen.training.pair_ends import Ends, ends_of, fit_readout
from loragen.training.pair_prompts import PairPrompts
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


def test_a_key_that_is_there_twice_teaches_nothing(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors
) -> None:
    values = {"first": "amber", "second": "coral"}
    rule = "Say amber if the review is good, coral if it is bad. Have a good day."
    assert find(values, rule, "verdict", tokenizer, vectors) == ([], None)


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


def test_a_readout_learns_where_pairs_end() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(8, 6)
    states = torch.cat([torch.cat([vectors, torch.ones(8, 1)], 1), -torch.ones(8, 7)])
    is_end = torch.tensor([1.0] * 8 + [0.0] * 8)
    none = torch.zeros(8, 6)
    ends = Ends(states, is_end, torch.cat([vectors, none]), torch.cat([vectors, none]))
    reader = PairReader(states=7, vectors=6, gates=4)
    before = reader.key_code.weight.clone()
    fit_readout(reader, ends, epochs=300, rate=1e-2, seed=0)
    logits, keys, values = reader.read(states)
    assert torch.equal(logits > 0, is_end == 1)
    torch.testing.assert_close(keys[:8], vectors, atol=0.2, rtol=0.2)
    torch.testing.assert_close(values[:8], vectors, atol=0.2, rtol=0.2)
    assert torch.equal(reader.key_code.weight, before)


def test_a_value_of_two_words_weighs_as_much_as_one(vectors: WordVectors) -> None:
    one, other, both = (vectors(text) for text in ("golden", "city", "golden(city)"))
    for vector in (one, other, both):
        assert torch.allclose(vector.square().mean(), torch.tensor(1.0), atol=1e-3)
    assert torch.allclose(both / both.norm(), (one + other) / (one + other).norm(), atol=1e-5)


def test_hard_families_have_their_share_of_tables(tokenizer: PreTrainedTokenizerBase) -> None:
    def share(of_tables: float) -> float:
        prompts = PairPrompts(TENANTS, Renderer(tokenizer), ("tools",), of_tables)
        drawn = [p for _ in range(8) for p in prompts.draw(rng, tables=0.5, pairs=0.75)]
        tables = [prompt for prompt in drawn if "table" in prompt.values]
        assert 0.35 < len(tables) / len(drawn) < 0.65
        return sum(prompt.family.name == "tools" for prompt in tables) / len(tables)

    for family in ("verdict", "nothing"):  # the one has no tables, the other is none
        with pytest.raises(ConfigError, match=family):
            PairPrompts(TENANTS, Renderer(tokenizer), (family,), 0.5)
    rng = Random(0)
    assert share(0.0) < 0.35 < 0.45 < share(0.6)


def test_a_value_of_two_words_ends_at_each_of_them_unless_its_key_comes_later(
    tokenizer: PreTrainedTokenizerBase, vectors: WordVectors
) -> None:
    table = {"table": "mail=golden(city);maps=beta(name)"}
    rule = "Tools: mail: golden(city), beta(name) for maps."
    words, ends = find(table, rule, "tools", tokenizer, vectors)
    assert words == ["golden", "city", "maps"]
    assert ends is not None
    torch.testing.assert_close(ends.keys[:3], vectors.stack(["mail", "mail", "maps"]))
    parts = [part for _, part in vectors.parts("golden(city)")]
    torch.testing.assert_close(ends.values[:2], torch.stack(parts))
    torch.testing.assert_close(sum(parts), vectors("golden(city)"))
    assert torch.cosine_similarity(parts[0], vectors("golden"), dim=0) > 0.999
    torch.testing.assert_close(ends.values[2], vectors("beta(name)"))
