from contextlib import ExitStack

import pytest

from workers.ids import RecipeIds


def test_requests_with_one_recipe_share_its_number() -> None:
    ids = RecipeIds()
    with ids.lease("a") as first, ids.lease("a") as second:
        assert first == second


def test_a_number_outlives_its_requests_while_it_is_remembered() -> None:
    ids = RecipeIds(keep=2)
    with ids.lease("a") as first:
        pass
    with ids.lease("b"), ids.lease("a") as again:
        assert again == first


def test_a_number_in_use_is_never_given_away() -> None:
    ids = RecipeIds(keep=1)
    with ids.lease("held") as held:
        for index in range(20):
            with ids.lease(f"other-{index}") as other:
                assert other != held
        with ids.lease("held") as again:
            assert again == held


def test_numbers_are_bounded_by_what_is_kept_and_held() -> None:
    ids = RecipeIds(keep=3)
    seen = set()
    with ExitStack() as stack:
        seen.add(stack.enter_context(ids.lease("held")))
        for index in range(1000):
            with ids.lease(f"recipe-{index}") as number:
                seen.add(number)
    assert max(seen) <= 5


def test_api_processes_that_share_an_engine_never_share_a_number() -> None:
    numbers = []
    for index in range(3):
        ids = RecipeIds(first=index + 1, step=3)
        for name in "abc":
            with ids.lease(name) as number:
                numbers.append(number)
    assert len(set(numbers)) == 9


def test_a_failed_request_gives_its_number_back() -> None:
    ids = RecipeIds(keep=1)
    with pytest.raises(RuntimeError), ids.lease("a"):
        raise RuntimeError
    with ids.lease("b") as first, ids.lease("a") as second:
        assert {first, second} == {1, 2}
