"""A leak is found among noise, and what only wavers is none."""

import numpy as np
import pytest

from bench.growth import TOLERANCES, growth, judged
from bench.lives import Life
from bench.soak import verdict

MIB = 1 << 20
TIMES = [5.0 * number for number in range(240)]


def wavering(level: float, noise: float, *, per_second: float = 0.0) -> list[float]:
    chance = np.random.default_rng(3)
    return [level + per_second * at + noise * chance.normal() for at in TIMES]


def test_growth_is_the_slope_over_the_whole_time_whatever_the_peaks() -> None:
    values = [100 + 2 * at for at in TIMES]
    values[7] = values[100] = 1e9
    assert growth(TIMES, values) == pytest.approx(2 * TIMES[-1])


def test_memory_that_wavers_holds_and_a_leak_of_a_few_bytes_a_request_does_not() -> None:
    steady = judged("rss_bytes", TIMES, wavering(120 * MIB, 2 * MIB))
    leaking = judged("rss_bytes", TIMES, wavering(120 * MIB, 2 * MIB, per_second=10_000))
    assert steady["holds"]
    assert not leaking["holds"]
    assert leaking["per_hour"] == pytest.approx(36e6, rel=0.1)


@pytest.mark.parametrize("kind", ["descriptors", "threads", "series"])
def test_counts_that_climb_do_not_hold(kind: str) -> None:
    assert judged(kind, TIMES, [50.0] * len(TIMES))["holds"]
    least = TOLERANCES[kind].least
    assert not judged(kind, TIMES, [50 + (least + 2) * at / TIMES[-1] for at in TIMES])["holds"]


def test_lives_that_saw_too_little_are_not_judged_and_the_beginning_of_none() -> None:
    begun = Life("server: python -m server", 1, TIMES, {"threads": [9.0] * len(TIMES)})
    begun.values["rss_bytes"] = [min(at, 300.0) * MIB for at in TIMES]  # it warms up, then stays
    brief = Life("server: python -m server", 2, TIMES[:40], {"threads": TIMES[:40]})
    said = verdict([begun, brief], seconds=TIMES[-1])
    assert said["grew"] == []
    assert {(row["pid"], row["kind"]) for row in said["judged"]} == {
        (1, "threads"),
        (1, "rss_bytes"),
    }
    begun.values["threads"] = list(range(len(TIMES)))
    assert verdict([begun, brief], seconds=TIMES[-1])["grew"] == [
        "server: python -m server: threads"
    ]
