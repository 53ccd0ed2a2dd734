"""Router: the paper's head, from the cloud model's meta states to gates (Eq. 3 to 7).

Two levels share Eq. 3, R = BN(f2(SiLU(f1(T)))), with f1 shared and f2 and BN per layer:

    L0 paper  softmax over the n experts, the top k kept and renormalised; one gate vector per
              layer for all its linears                                      gates [B, L, 1, n]
    L1 dense  R itself: signed gates per layer and linear                    gates [B, L, M, n]

L1 may add a binder's sums to f2's before BN. In L0 the gradient reaches only the kept experts, so a
balance term keeps the others alive.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from loragen.errors import ArtifactCorrupt
from loragen.recipe import Level


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """Shape of a router.

    `top_k` counts kept experts and is unused in L1; `binds` is 1 where a binder adds to the scores.
    `pair_experts` stand behind the router's own `experts` in a pool, and a pair reader gates them.
    """

    level: Level
    cloud_hidden: int
    hidden: int
    layers: int
    linears: int
    experts: int
    top_k: int = 2
    binds: int = 0
    pair_experts: int = 0

    @property
    def pool_experts(self) -> int:
        """Experts of the pool."""
        return self.experts + self.pair_experts

    @property
    def gate_vectors(self) -> int:
        """Gate vectors per layer: M in L1, one for all linears in L0."""
        return 1 if self.level is Level.PAPER else self.linears

    def to_config(self) -> dict[str, int]:
        """Return the fields as JSON values."""
        return {**asdict(self), "level": int(self.level)}

    @classmethod
    def from_config(cls, fields: dict[str, Any]) -> Self:
        """Read the fields of a generator's `config.json`.

        Raises:
            ArtifactCorrupt: a field is missing, unknown or out of range.
        """
        try:
            spec = cls(**{**fields, "level": Level(fields["level"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactCorrupt(f"router config is not readable: {error}") from error
        if not 1 <= spec.top_k <= spec.experts:
            raise ArtifactCorrupt(f"router keeps {spec.top_k} of {spec.experts} experts")
        if spec.binds not in (0, 1):
            raise ArtifactCorrupt(f"a router has one binder or none, not {spec.binds}")
        if spec.pair_experts < 0 or (spec.pair_experts and spec.level is Level.PAPER):
            raise ArtifactCorrupt(
                f"level {spec.level} cannot have {spec.pair_experts} pair experts"
            )
        return spec


class Router(nn.Module):
    """Maps meta states [B, L, D] to gates [B, L, M, N] (M = 1 in L0)."""

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.gate_vectors * spec.experts
        self.f1 = nn.Linear(spec.cloud_hidden, spec.hidden)
        self.f2 = nn.ModuleList(nn.Linear(spec.hidden, width) for _ in range(spec.layers))
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(spec.layers))

    def forward(self, meta_BLD: torch.Tensor, bound_BG: torch.Tensor | None = None) -> torch.Tensor:
        """Apply Eq. 3, and in L0 Eq. 6 and 7.

        `bound_BG` are a binder's sums for all gates, G = L * M * N.
        """
        hidden_BLH = functional.silu(self.f1(meta_BLD))
        raw = [f2(hidden_BLH[:, layer]) for layer, f2 in enumerate(self.f2)]
        if bound_BG is not None:
            bound = bound_BG.chunk(self.spec.layers, -1)
            raw = [score + more for score, more in zip(raw, bound, strict=True)]
        scores_BLG = torch.stack(
            [norm(score_BG) for norm, score_BG in zip(self.norm, raw, strict=True)], dim=1
        )
        scores_BLMN = scores_BLG.unflatten(-1, (self.spec.gate_vectors, self.spec.experts))
        gates_BLMN: torch.Tensor = scores_BLMN
        if self.spec.level is Level.PAPER:
            gates_BLMN = keep_top_k(scores_BLMN.softmax(-1), self.spec.top_k)
        return gates_BLMN


def keep_top_k(shares_BLMN: torch.Tensor, k: int) -> torch.Tensor:
    """Zero all but the k largest and scale these to sum to one (Eq. 7)."""
    kept, chosen = shares_BLMN.topk(k, dim=-1)
    kept = kept / kept.sum(-1, keepdim=True)
    return torch.zeros_like(shares_BLMN).scatter(-1, chosen, kept)


def balance_loss(gates_BLMN: torch.Tensor) -> torch.Tensor:
    """Return (sigma / mu)^2 of the gate mass per expert, within each layer of a batch."""
    mass_LN = gates_BLMN.sum((0, 2))
    variation_L = mass_LN.std(-1, correction=0) / mass_LN.mean(-1)
    return (variation_L**2).mean()
