"""Tables state every row, and questions about them have the row's answer."""

import re
from random import Random

import pytest

from loragen.suite.splits import Split
from loragen.suite.table import ROWS, UNKNOWN, Table, entries
from loragen.suite.tables import ROUTES
from loragen.suite.tenants import LOOKUPS, TENANTS
from loragen.suite.unseen_tables import ROSTER, SHELVES

TABLES = (*LOOKUPS, ROSTER, SHELVES)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_prompt_states_every_row(table: Table, held_out: bool) -> None:
    if held_out and not table.held_out_wordings:
        pytest.skip("an unseen family has one set of wordings")
    for seed in range(50):
        rng = Random(seed)
        values = table.draw(rng)
        text = table.word(rng, values, held_out=held_out)
        rows = entries(values)
        assert ROWS[0] <= len(rows) <= ROWS[1]
        assert len(dict(rows)) == len(rows)
        for key, value in rows:
            assert re.search(rf"\b{re.escape(key)}\b", text)
            assert value in text


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_answers_are_of_the_row_that_is_asked_for(table: Table) -> None:
    listed = 0
    for seed in range(100):
        values = table.draw(Random(seed))
        turn = table.ask(Random(seed), values)
        if turn.answer == UNKNOWN:
            continue
        listed += 1
        right = [key for key, value in entries(values) if value.split("(")[0] in turn.answer]
        assert len(right) >= 1
    assert listed >= 70


def test_a_message_may_mean_a_key_without_naming_it() -> None:
    prompt = TENANTS.draw(ROUTES, Split.TRAIN, 0)
    questions = {prompt.ask(Random(seed)).question for seed in range(200)}
    keys = [key for key, _ in entries(prompt.values)]
    assert any(not any(key in question for key in keys) for question in questions)
