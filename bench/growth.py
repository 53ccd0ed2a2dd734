"""Growth: whether what a process holds goes on growing, from samples of its life.

The slope is the median of the slopes between all pairs of samples (Theil and Sen), which neither a
peak nor a few lucky samples move. What it comes to over the samples must stay within a tolerance:
memory is handed out in arenas and series begin with the first request of their kind, so that a
level of nothing at all would be met by nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much more there may be at the end: a share of what there is, but at least so much."""

    share: float
    least: float


TOLERANCES: Final = {
    "rss_bytes": Tolerance(0.03, 8 * _MIB),
    "descriptors": Tolerance(0.0, 4),
    "threads": Tolerance(0.0, 2),
    "series": Tolerance(0.01, 4),
}


def growth(times: Sequence[float], values: Sequence[float]) -> float:
    """Return by how much values grow from the first time to the last, as their slope says."""
    at, seen = np.asarray(times, float), np.asarray(values, float)
    first, second = np.triu_indices(len(at), 1)
    slope = np.median((seen[second] - seen[first]) / (at[second] - at[first]))
    return float(slope * (at[-1] - at[0]))


def judged(kind: str, times: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """Return what a kind of thing grew by, what was allowed, and whether it kept to that."""
    grown, median = growth(times, values), float(np.median(values))
    allowed = max(TOLERANCES[kind].share * median, TOLERANCES[kind].least)
    return {
        "median": round(median, 1),
        "growth": round(grown, 1),
        "per_hour": round(3_600 * grown / (times[-1] - times[0]), 1),
        "allowed": round(allowed, 1),
        "holds": grown <= allowed,
    }
