"""Resampling: confidence intervals of means by the bootstrap (Efron 1979), over tasks."""

from typing import Final

import torch

_DRAWS: Final = 2_000


def interval(values_N: torch.Tensor) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of independent values, the same every time.

    Questions of one prompt are not independent: take the mean of each task first.
    """
    chosen_DN = torch.randint(
        len(values_N), (_DRAWS, len(values_N)), generator=torch.Generator().manual_seed(0)
    )
    means_D = values_N.double()[chosen_DN].mean(1)
    low, high = means_D.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return round(low, 4), round(high, 4)


def ratio_interval(values_N: torch.Tensor, of_N: torch.Tensor) -> tuple[float, float]:
    """Return the interval of the ratio of two means over the same tasks, drawn together.

    NaN where what it is a ratio of is 0 in too many draws.
    """
    chosen_DN = torch.randint(
        len(values_N), (_DRAWS, len(values_N)), generator=torch.Generator().manual_seed(0)
    )
    ratios_D = values_N.double()[chosen_DN].mean(1) / of_N.double()[chosen_DN].mean(1)
    low, high = ratios_D.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return round(low, 4), round(high, 4)
