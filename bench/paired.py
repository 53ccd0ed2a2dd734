"""Two samples compared: differences of pairs, and how well one number tells them apart."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

_DRAWS = 2_000


def quantile_differences(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], quantile: float
) -> dict[str, float]:
    """Return the quantile of both sides, and how much higher the second's is, in milliseconds.

    The values of all pairs together, with a 95 % interval from drawing pairs anew: values of one
    pair were measured at one time, and are not independent.
    """
    chance = np.random.default_rng(0)
    drawn = [chance.integers(len(pairs), size=len(pairs)) for _ in range(_DRAWS)]
    low, high = np.percentile([_difference(pairs, each, quantile) for each in drawn], [2.5, 97.5])
    everyone = np.arange(len(pairs))
    off, on = (_pooled(pairs, everyone, side, quantile) for side in (0, 1))
    return {
        "off_ms": _ms(off),
        "on_ms": _ms(on),
        "difference_ms": _ms(on - off),
        "difference_ms_low": _ms(float(low)),
        "difference_ms_high": _ms(float(high)),
    }


def ratio(ones: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Return the median of the pairs' ratios, ones over others, with its 95 % interval."""
    return median_interval([one / other for one, other in zip(ones, others, strict=True)])


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """Return the median with its 95 % interval, from drawing the values anew."""
    draws = np.random.default_rng(0).choice(values, size=(_DRAWS, len(values)))
    low, high = _interval(np.median(draws, axis=1).tolist())
    return {"median": round(float(np.median(values)), 4), "low": low, "high": high}


def told_apart(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Return how far the medians are apart, and the AUC: the chance that `other` takes longer.

    An AUC of 0.5 is that of two samples which nothing tells apart; intervals by the bootstrap.
    """
    ones, others = np.asarray(one), np.asarray(other)
    chance = np.random.default_rng(0)
    aucs, ratios = [], []
    for _ in range(_DRAWS // 4):
        a, b = chance.choice(ones, len(ones)), chance.choice(others, len(others))
        aucs.append(auc(a, b))
        ratios.append(float(np.median(b) / np.median(a)) - 1)
    return {
        "n": [len(ones), len(others)],
        "median_ms": [_ms(float(np.median(ones))), _ms(float(np.median(others)))],
        "median_difference": round(float(np.median(others) / np.median(ones)) - 1, 4),
        "median_difference_95": _interval(ratios),
        "auc": round(auc(ones, others), 4),
        "auc_95": _interval(aucs),
    }


def interval(values: list[float]) -> dict[str, float]:
    """Return the median and its 95% bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, size=(2_000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return {
        "median": round(statistics.median(values), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def auc(one: Any, other: Any) -> float:
    """Return the chance that a value of `other` is the larger one; ties count half."""
    ordered = np.sort(one)
    below = np.searchsorted(ordered, other, side="left")
    up_to = np.searchsorted(ordered, other, side="right")
    return float(np.mean((below + up_to) / 2) / len(ordered))


def _difference(pairs: Sequence[Any], chosen: Any, quantile: float) -> float:
    off, on = (_pooled(pairs, chosen, side, quantile) for side in (0, 1))
    return on - off


def _pooled(pairs: Sequence[Any], chosen: Any, side: int, quantile: float) -> float:
    return float(np.quantile(np.concatenate([pairs[i][side] for i in chosen]), quantile))


def _interval(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in np.percentile(values, [2.5, 97.5])]


def _ms(seconds: float) -> float:
    return round(1_000 * seconds, 2)
