from typing import Any

from bench.decode import intervals, summary


def figure(median: float) -> dict[str, float]:
    return {"median": median, "low": median - 0.1, "high": median + 0.1}


def shape(hidden: int, threads: int, tokens: int, grouped: float) -> dict[str, Any]:
    over_grouped = {"8": figure(grouped), "64": figure(2 * grouped)}
    return {"hidden": hidden, "threads": threads, "tokens": tokens, "over_grouped": over_grouped}


def test_the_summary_has_the_shape_of_the_engine_and_the_most_tasks() -> None:
    report = {
        "layers": {
            "shapes": [
                shape(1024, 1, 64, 1.1),
                shape(1024, 2, 64, 1.2),
                shape(1024, 2, 16, 1.3),
                shape(2048, 2, 64, 1.4),
            ]
        },
        "engines": {
            "model": {"hidden": 1024},
            "protocol": {"batch": 64, "threads": 1},
            "decode_over_bare": {"base": figure(1), "64": figure(0.9)},
            "ceiling": figure(0.92),
            "flatness": {"1": figure(1), "100000": figure(0.99), "10000": figure(0.98)},
        },
    }
    assert summary(report) == {
        "gate_vs_bare_decode": 0.9,
        "ceiling": 0.92,
        "gate_flatness_1_to_max": 0.99,
        "gate_vs_grouped_8": 1.1,
        "gate_vs_grouped_64": 2.2,
    }
    assert intervals(report)["gate_flatness_1_to_max"] == [0.89, 1.09]
