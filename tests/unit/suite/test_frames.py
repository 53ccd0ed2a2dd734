"""A frame changes how answers are written, not what they say; unseen pairs are new."""

from random import Random

import pytest

from loragen.suite.family import Family
from loragen.suite.frames import ENDING, FIELD, OPENING, WRAP, Frame, Framed
from loragen.suite.rewrites import PICK
from loragen.suite.splits import Split
from loragen.suite.tables import ROUTES
from loragen.suite.tenants import FRAMED, TENANTS


@pytest.mark.parametrize("base", [PICK, ROUTES], ids=lambda base: base.name)
@pytest.mark.parametrize(
    ("frame", "form"),
    [
        (WRAP, "{left}{answer}{right}"),
        (FIELD, '{{"{field}": "{answer}"}}'),
        (OPENING, "{opening} {answer}"),
        (ENDING, "{answer} {ending}"),
    ],
)
def test_an_answer_is_the_rules_in_the_frames_form(frame: Frame, form: str, base: Family) -> None:
    family = frame.around("framed", (base,))
    for number in range(20):
        values = family.values(Random(number), held_out=False)
        plain = base.ask(Random(number), values)
        framed = family.ask(Random(number), values)
        assert framed.question == plain.question
        assert framed.answer == form.format(answer=plain.answer, **values)


@pytest.mark.parametrize("family", FRAMED, ids=lambda family: family.name)
def test_a_prompt_holds_the_rule_and_the_frame(family: Framed) -> None:
    for number in range(20):
        prompt = TENANTS.draw(family, Split.TRAIN, number)
        (base,) = (each for each in family.bases if each.name == prompt.values["base"])
        chosen = set(prompt.values) - {"base", "table", *base.draw(Random(0))}
        assert chosen
        assert all(prompt.values[name] in prompt.rule for name in chosen)


def test_unseen_families_pair_rules_and_frames_that_training_never_pairs() -> None:
    unseen = [family for family in TENANTS.unseen if isinstance(family, Framed)]
    seen = {(family.wordings, base.name) for family in FRAMED for base in family.bases}
    assert unseen
    for family in unseen:
        assert seen.isdisjoint((family.wordings, base.name) for base in family.bases)
