"""Splits of the task suite share nothing that would turn evaluation into memory."""

import re
from collections.abc import Callable
from random import Random

import pytest

from loragen.suite import boilerplate, small
from loragen.suite.family import Family, expand
from loragen.suite.frames import Framed
from loragen.suite.small import SMALL
from loragen.suite.splits import Catalogue, Split
from loragen.suite.table import Table
from loragen.suite.tenants import TENANTS

PROMPTS = 80
CASES = [(catalogue, family) for catalogue in (SMALL, TENANTS) for family in catalogue.seen]
NAMES = [f"{catalogue.name}-{family.name}" for catalogue, family in CASES]


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


def choices(template: str) -> str:
    """Return a template with all its choices side by side."""
    return re.sub(r"<([^<>]*)>", lambda match: match[1].replace("|", " "), template)


def trained_words(catalogue: Catalogue) -> set[str]:
    """Return the words of everything that training prompts and chats are made of."""
    seen = words(" ".join([*catalogue.words, *map(choices, catalogue.sentences)]))
    for family in catalogue.seen:
        seen |= words(" ".join(map(choices, family.wordings)))
        if isinstance(family, Table):
            seen |= words(" ".join(family.rows))
        for index in range(PROMPTS):
            prompt = catalogue.draw(family, Split.TRAIN, index)
            turn = prompt.ask(Random(index))
            seen |= words(f"{prompt.text} {turn.question} {turn.answer} {turn.default}")
    return seen


@pytest.mark.parametrize(("catalogue", "family"), CASES, ids=NAMES)
def test_values_of_training_and_evaluation_are_disjoint(
    catalogue: Catalogue, family: Family
) -> None:
    drawn = {
        split: {
            tuple(catalogue.draw(family, split, index).values.items()) for index in range(PROMPTS)
        }
        for split in (Split.TRAIN, Split.UNSEEN_PROMPTS, Split.UNSEEN_WORDINGS)
    }
    assert drawn[Split.TRAIN].isdisjoint(drawn[Split.UNSEEN_PROMPTS])
    assert drawn[Split.TRAIN].isdisjoint(drawn[Split.UNSEEN_WORDINGS])


def expansions(templates: tuple[str, ...]) -> set[str]:
    rng = Random(0)
    return {expand(template, rng) for template in templates for _ in range(100)}


@pytest.mark.parametrize(("catalogue", "family"), CASES, ids=NAMES)
def test_wordings_are_many_and_held_out_ones_are_others(
    catalogue: Catalogue, family: Family
) -> None:
    least = (8, 2) if catalogue is SMALL else (30, 8)
    forms = [expansions(family.wordings), expansions(family.held_out_wordings)]
    assert forms[0].isdisjoint(forms[1])
    counts = [len(form) for form in forms]
    if isinstance(family, Table):
        assert set(family.rows).isdisjoint(family.held_out_rows)
        counts = [counts[0] * len(family.rows), counts[1] * len(family.held_out_rows)]
    if isinstance(family, Framed):
        counts[0] *= sum(len(expansions(base.wordings)) for base in family.bases)
        counts[1] *= sum(len(expansions(base.held_out_wordings)) for base in family.bases)
    assert counts[0] >= least[0]
    assert counts[1] >= least[1]


@pytest.mark.parametrize("catalogue", [SMALL, TENANTS], ids=lambda catalogue: catalogue.name)
def test_evaluation_uses_no_word_that_training_never_showed(catalogue: Catalogue) -> None:
    seen = trained_words(catalogue)
    evaluated = [(family, Split.UNSEEN_WORDINGS) for family in catalogue.seen]
    evaluated += [(family, Split.UNSEEN_FAMILIES) for family in catalogue.unseen]
    for family, split in evaluated:
        for index in range(PROMPTS):
            assert words(catalogue.draw(family, split, index).text) <= seen


@pytest.mark.parametrize("catalogue", [SMALL, TENANTS], ids=lambda catalogue: catalogue.name)
def test_answers_need_the_prompt(catalogue: Catalogue) -> None:
    """All of them, but questions about what a table does not list."""
    for family in (*catalogue.seen, *catalogue.unseen):
        split = Split.TRAIN if family in catalogue.seen else Split.UNSEEN_FAMILIES
        turns = [catalogue.draw(family, split, i).ask(Random(i)) for i in range(50)]
        needed = sum(turn.answer != turn.default for turn in turns)
        assert needed >= 35 if isinstance(family, Table) else needed == 50


@pytest.mark.parametrize("catalogue", [SMALL, TENANTS], ids=lambda catalogue: catalogue.name)
def test_a_prompt_is_a_function_of_family_split_and_index(catalogue: Catalogue) -> None:
    family = catalogue.seen[0]
    first, again = (catalogue.draw(family, Split.TRAIN, 7) for _ in range(2))
    assert first == again
    assert first.ask(Random(1)) == again.ask(Random(1))


@pytest.mark.parametrize("surround", [small.surround, boilerplate.surround])
def test_surroundings_keep_the_rule_whole(surround: Callable[[str, Random], str]) -> None:
    assert all("Say X." in surround("Say X.", Random(seed)) for seed in range(100))


def test_tenants_prompts_have_the_length_of_real_ones() -> None:
    lengths = sorted(
        len(re.findall(r"\w+|[^\w\s]", TENANTS.draw(family, Split.TRAIN, index).text))
        for family in TENANTS.seen
        for index in range(20)
    )
    assert sum(lengths) / len(lengths) >= 120
    assert lengths[-1] <= 400
    assert sum(length >= 60 for length in lengths) >= 0.8 * len(lengths)


def test_the_tenants_catalogue_is_broad() -> None:
    assert len({family.name for family in TENANTS.seen}) >= 24
    assert len(TENANTS.unseen) >= 6
    assert sum(isinstance(family, Table) for family in TENANTS.seen) >= 4
    assert sum(isinstance(family, Table) for family in TENANTS.unseen) >= 2
    names = {family.name for family in TENANTS.seen}
    assert names.isdisjoint(family.name for family in TENANTS.unseen)
