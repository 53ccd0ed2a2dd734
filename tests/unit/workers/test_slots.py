import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.slots import SlotTable


def test_a_placed_recipe_keeps_its_row_and_is_written_once() -> None:
    table = SlotTable(2)
    (row,) = table.place({1: "a"}).values()
    assert table.place({1: "a"}) == {}
    assert table.row(1) == row
    assert row != table.zero_row


def test_the_least_recently_used_recipe_goes_first() -> None:
    table = SlotTable(2)
    table.place({1: "a"})
    table.place({2: "b"})
    table.place({1: "a"})
    table.place({3: "c"})
    assert table.ids() == {1, 3}


def test_a_number_used_again_for_another_recipe_is_written_again() -> None:
    table = SlotTable(2)
    row = table.place({1: "a"})[1]
    assert table.place({1: "b"}) == {1: row}
    assert table.holds(1, "b")
    assert not table.holds(1, "a")


def test_dropped_rows_are_free_and_unknown_numbers_are_no_error() -> None:
    table = SlotTable(1)
    table.place({1: "a"})
    assert table.drop(1)
    assert not table.drop(1)
    table.place({2: "b"})
    assert table.ids() == {2}


def test_more_recipes_than_rows_are_refused_without_a_change() -> None:
    table = SlotTable(1)
    table.place({1: "a"})
    with pytest.raises(ValueError, match="2 recipes"):
        table.place({2: "b", 3: "c"})
    assert table.holds(1, "a")


@given(st.lists(st.sets(st.integers(1, 12), min_size=1, max_size=4), max_size=40))
def test_recipes_of_one_step_never_share_a_row_or_lose_it(steps: list[set[int]]) -> None:
    table = SlotTable(4)
    content: dict[int, str] = {}  # what a manager would have written to each row
    for step in steps:
        wanted = {number: f"recipe-{number}" for number in step}
        for number, row in table.place(wanted).items():
            content[row] = wanted[number]
        rows = {number: table.row(number) for number in step}
        assert len(set(rows.values())) == len(step)
        assert all(content[rows[number]] == wanted[number] for number in step)
        assert table.zero_row not in rows.values()
