"""Optimiser of all training here: Muon for the matrices of the blocks, AdamW for the rest.

Muon (https://kellerjordan.github.io/posts/muon/) takes the orthogonal part of each momentum
matrix; at this scale it forms copying circuits several times faster than AdamW alone. Matrices of
one shape are orthogonalised together, which on a CPU is far cheaper than `torch.optim.Muon`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

_MOMENTUM: Final = 0.95
_NEWTON_SCHULZ: Final = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate over time: linear warm-up, flat, then linear decay to 3 %."""

    steps: int
    warmup: int = 40
    flat_share: float = 0.4

    def factor(self, step: int) -> float:
        """Return the factor on the learning rate at `step`."""
        decayed = max(0.0, step / self.steps - self.flat_share) / (1 - self.flat_share)
        return min(1.0, (step + 1) / self.warmup) * max(0.03, 1 - decayed)


class Optimizer:
    """Steps Muon and AdamW together, with clipped gradients."""

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Sequence[tuple[Iterable[nn.Parameter], float]],
        matrix_lr: float,
        *,
        matrix_decay: float = 0.0,
    ) -> None:
        """Take the matrices, groups of other parameters with their rates, and the matrices' rate.

        `matrix_decay` shrinks matrices by so many times their rate at every step. Without it they
        grow for as long as they are trained, and each step turns them less.
        """
        self._matrices = list(matrices)
        self._matrix_decay = matrix_decay
        self._momenta = [torch.zeros_like(p) for p in self._matrices]
        self._matrix_lr = matrix_lr
        groups = [{"params": list(params), "lr": lr} for params, lr in others]
        self._adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)
        self._adam_lrs = [lr for _, lr in others]
        self._all = self._matrices + [p for group in groups for p in _params(group["params"])]

    def set_rates(self, matrix_lr: float, *other_lrs: float) -> None:
        """Change the learning rates: of the matrices, and of each group of others."""
        self._matrix_lr = matrix_lr
        self._adam_lrs = list(other_lrs)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs to go on in another process."""
        return {"momenta": self._momenta, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a state of an optimiser of the same parameters."""
        for momentum, stored in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(stored)
        self._adam.load_state_dict(state["adam"])

    def step(self, loss: torch.Tensor, factor: float) -> None:
        """Take one step down the gradient of `loss`."""
        for parameter in self._all:
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self._all, 1.0)
        for group, lr in zip(self._adam.param_groups, self._adam_lrs, strict=True):
            group["lr"] = lr * factor
        self._adam.step()
        self._step_matrices(self._matrix_lr * factor)

    @torch.no_grad()
    def _step_matrices(self, lr: float) -> None:
        by_shape: dict[torch.Size, list[tuple[nn.Parameter, torch.Tensor]]] = {}
        for parameter, momentum in zip(self._matrices, self._momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(_MOMENTUM).add_(parameter.grad)
            nesterov = parameter.grad + _MOMENTUM * momentum
            by_shape.setdefault(parameter.shape, []).append((parameter, nesterov))
        for shape, pairs in by_shape.items():
            updates = orthogonalise(torch.stack([update for _, update in pairs]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - lr * self._matrix_decay).add_(update, alpha=-lr * scale)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices of the blocks, and all other parameters."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "layers." in name
        (matrices if is_matrix else others).append(parameter)
    return matrices, others


def orthogonalise(matrices_NFD: torch.Tensor) -> torch.Tensor:
    """Return the nearest semi-orthogonal matrices, by five Newton-Schulz iterations."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrices_NFD.shape[1] > matrices_NFD.shape[2]
    x = matrices_NFD.mT if tall else matrices_NFD
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: torch.Tensor = x.mT if tall else x
    return orthogonal


def _params(value: object) -> list[nn.Parameter]:
    assert isinstance(value, list)
    return value
