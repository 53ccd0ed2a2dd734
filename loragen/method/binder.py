"""Binder: what stands beside what in a prompt, as a sum of products over its tokens.

    gates += sum over tokens t of (U s_t) * (W s_t),     s_t = states of all layers at token t

A table binds values to keys, and a recipe holds a table as a sum of products of a code of the key
and one of the value, as in holographic representations (Plate 1995) and fast weights (Schlag et
al., arXiv 2102.11174). Meta tokens alone find which values a table holds long before they find
whose each is (`docs/LOG.md`); the product is here, so training need not discover it.
"""

import torch
from torch import nn

from loragen.method.pair_reader import stack_states


class Binder(nn.Module):
    """Sums products of two views of each token's states."""

    def __init__(self, states: int, gates: int) -> None:
        """Take the size of a token's states of all layers, and the count of gates."""
        super().__init__()
        self.views = nn.ModuleList(nn.Linear(states, gates, bias=False) for _ in range(2))

    def forward(self, states: tuple[torch.Tensor, ...], used_BP: torch.Tensor) -> torch.Tensor:
        """Return sums [B, G] over the used tokens of the states [B, P, D] of several layers."""
        states_BPS = stack_states(states)
        one_BPG, other_BPG = (view(states_BPS) for view in self.views)
        sums_BG: torch.Tensor = (one_BPG * other_BPG * used_BP[..., None]).sum(1)
        return sums_BG
