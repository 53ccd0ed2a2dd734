"""Splits of the task suite share nothing that would turn evaluation into memory."""

import re
from random import Random

import pytest

from loragen.suite.family import Family, expand
from loragen.suite.splits import SEEN, UNSEEN, Split, draw, surround

PROMPTS = 400


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


@pytest.mark.parametrize("family", SEEN, ids=lambda family: family.name)
def test_values_of_training_and_evaluation_are_disjoint(family: Family) -> None:
    drawn = {
        split: {tuple(draw(family, split, index).values.items()) for index in range(PROMPTS)}
        for split in (Split.TRAIN, Split.UNSEEN_PROMPTS, Split.UNSEEN_WORDINGS)
    }
    assert drawn[Split.TRAIN].isdisjoint(drawn[Split.UNSEEN_PROMPTS])
    assert drawn[Split.TRAIN].isdisjoint(drawn[Split.UNSEEN_WORDINGS])


@pytest.mark.parametrize("family", SEEN, ids=lambda family: family.name)
def test_wordings_are_many_and_held_out_ones_are_others(family: Family) -> None:
    assert len(set(family.wordings)) >= 8
    assert len(set(family.held_out_wordings)) >= 2
    rng = Random(0)
    train = {expand(wording, rng) for wording in family.wordings for _ in range(100)}
    held_out = {expand(wording, rng) for wording in family.held_out_wordings for _ in range(100)}
    assert train.isdisjoint(held_out)


def test_evaluation_uses_no_word_that_training_never_showed() -> None:
    seen: set[str] = set()
    for family in SEEN:
        for index in range(2 * PROMPTS):
            prompt = draw(family, Split.TRAIN, index)
            turn = prompt.ask(Random(index))
            seen |= words(f"{prompt.text} {turn.question} {turn.answer} {turn.default}")
    evaluated = [(family, Split.UNSEEN_WORDINGS) for family in SEEN]
    evaluated += [(family, Split.UNSEEN_FAMILIES) for family in UNSEEN]
    for family, split in evaluated:
        for index in range(PROMPTS):
            assert words(draw(family, split, index).text) <= seen


@pytest.mark.parametrize("family", [*SEEN, *UNSEEN], ids=lambda family: family.name)
def test_answers_need_the_prompt(family: Family) -> None:
    split = Split.TRAIN if family in SEEN else Split.UNSEEN_FAMILIES
    for index in range(50):
        turn = draw(family, split, index).ask(Random(index))
        assert turn.answer != turn.default


def test_a_prompt_is_a_function_of_family_split_and_index() -> None:
    first, again = draw(SEEN[0], Split.TRAIN, 7), draw(SEEN[0], Split.TRAIN, 7)
    assert first == again
    assert first.ask(Random(1)) == again.ask(Random(1))


def test_surroundings_keep_the_rule_whole() -> None:
    assert all("Say X." in surround("Say X.", Random(seed)) for seed in range(100))
