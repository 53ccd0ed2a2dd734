"""The figures of a comparison say what they should of samples whose answer is known."""

import numpy as np
import pytest

from bench.fairness import flood_report
from bench.flood import Answers
from bench.paired import auc, quantile_differences, ratio, told_apart


def test_auc_is_the_chance_of_the_larger_value_and_ties_are_half() -> None:
    assert auc([1.0, 2.0], [3.0, 4.0]) == 1
    assert auc([3.0, 4.0], [1.0, 2.0]) == 0
    assert auc([1.0, 1.0], [1.0, 1.0]) == 0.5
    assert auc([1.0, 3.0], [2.0, 4.0]) == 0.75


def test_two_samples_of_one_kind_are_not_told_apart_and_others_are() -> None:
    chance = np.random.default_rng(1)
    one, same = chance.exponential(size=(2, 2_000))
    alike = told_apart(one, same)
    assert alike["auc_95"][0] < 0.5 < alike["auc_95"][1]
    assert alike["median_difference_95"][0] < 0 < alike["median_difference_95"][1]
    slower = told_apart(one, 2 * same)
    assert slower["auc_95"][0] > 0.55
    assert slower["median_difference"] == pytest.approx(1, abs=0.2)


def test_a_difference_that_every_pair_has_is_found_although_pairs_differ_more() -> None:
    pairs = [([base + 0.001 * n for n in range(50)],) * 2 for base in (0.1, 0.5, 0.9)]
    slower = [(off, [value + 0.02 for value in on]) for off, on in pairs]
    found = quantile_differences(slower, 0.5)
    assert found["difference_ms"] == pytest.approx(20)
    assert found["difference_ms_low"] == found["difference_ms_high"] == pytest.approx(20)


@pytest.mark.parametrize(("added", "holds"), [(0.02, True), (0.05, False)])
def test_the_bound_is_a_fifth_and_a_step(added: float, holds: bool) -> None:
    one = {
        "nobody": Answers([0.1] * 9),
        "share": Answers([0.11] * 9),
        "flood": Answers([0.1 + added] * 9, steps=[0.01] * 9),
    }
    report = flood_report({"rounds": [one] * 7, "outcomes": {}})
    assert (report["bound_ms"], report["holds"]) == (130, holds)
    modest = report["against_a_modest_neighbour"]["first_token_p50"]
    assert modest["difference_ms"] == pytest.approx(1_000 * added - 10)


def test_a_ratio_of_pairs_is_exact_although_the_machine_slows_down() -> None:
    ones = [1.0, 2.0, 5.0, 9.0]
    found = ratio(ones, [one / 2 for one in ones])
    assert found == {"median": 2, "low": 2, "high": 2}
