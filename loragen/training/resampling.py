"""Resampling: confidence intervals of means by the bootstrap (Efron 1979), over tasks."""

from typing import Final

import torch

_DRAWS: Final = 2_000


def interval(values_N: torch.Tensor) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of independent values, the same every time.

    Questions of one prompt are not independent: take the mean of each task first.
    """
    return _percentiles(values_N.double()[_draws(len(values_N))].mean(1))


def ratio_interval(values_N: torch.Tensor, of_N: torch.Tensor) -> tuple[float, float]:
    """Return the interval of the ratio of two means over the same tasks, drawn together.

    NaN where what it is a ratio of is 0 in too many draws.
    """
    chosen_DN = _draws(len(values_N))
    return _percentiles(values_N.double()[chosen_DN].mean(1) / of_N.double()[chosen_DN].mean(1))


def _draws(tasks: int) -> torch.Tensor:
    """Return the tasks of each draw [D, N], the same every time."""
    return torch.randint(tasks, (_DRAWS, tasks), generator=torch.Generator().manual_seed(0))


def _percentiles(values_D: torch.Tensor) -> tuple[float, float]:
    low, high = values_D.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return round(low, 4), round(high, 4)
