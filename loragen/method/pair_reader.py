"""Pair reader: which value a prompt gives to which key, from the edge model's own states.

    p, k, v  = readout(s_t)                    s_t = states of all layers at token t
    gates    = h * norm(sum over t of p_t (K k_t) * (V v_t)),    h = max over t of p_t

An edge model that looks values up in its prompt holds, where a pair ends, both of its words. The
readout says whether one ends at a token (p), and which word vectors its key and value have (k, v);
K and V code them, and a table is the sum of its pairs' products, as in holographic
representations (Plate 1995). The edge model is frozen: what it holds it cannot unlearn. A prompt
in which none is found leaves these gates near zero.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional


class PairReader(nn.Module):
    """Reads pairs from states, and codes them as gates."""

    def __init__(self, states: int, vectors: int, gates: int) -> None:
        """Take the sizes of a token's states of all layers, of word vectors, and of the gates."""
        super().__init__()
        self._vectors = vectors
        found = 1 + 2 * vectors
        self.inner = nn.Linear(states, 2 * vectors)
        self.outer = nn.Linear(2 * vectors, found)
        self.direct = nn.Linear(states, found)
        self.key_code = nn.Linear(vectors, gates, bias=False)
        self.value_code = nn.Linear(vectors, gates, bias=False)
        self.norm = nn.BatchNorm1d(gates)

    def forward(self, states: tuple[torch.Tensor, ...], used_BP: torch.Tensor) -> torch.Tensor:
        """Return gates [B, G] for the states [B, P, D] of several layers at the used tokens."""
        logit_BP, keys_BPV, values_BPV = self.read(stack_states(states))
        share_BP1 = (logit_BP.sigmoid() * used_BP)[..., None]
        products_BPG = self.bind(keys_BPV, values_BPV) * share_BP1
        return self.gates(products_BPG.sum(1), share_BP1.amax(1))

    def read(self, states_BPS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits [B, P] of a pair's end, and word vectors [B, P, V] of key and value."""
        found = self.outer(functional.silu(self.inner(states_BPS))) + self.direct(states_BPS)
        logit, keys, values = found.split([1, self._vectors, self._vectors], -1)
        return logit[..., 0], keys, values

    def readout_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights of `read`."""
        for module in (self.inner, self.outer, self.direct):
            yield from module.parameters()

    def bind(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the products [..., G] of the codes of keys and values [..., V]."""
        products: torch.Tensor = self.key_code(keys) * self.value_code(values)
        return products

    def gates(self, bound_BG: torch.Tensor, presence_B1: torch.Tensor) -> torch.Tensor:
        """Return gates [B, G] of summed products, and of whether there is a pair at all."""
        gates_BG: torch.Tensor = presence_B1 * self.norm(bound_BG)
        return gates_BG


def stack_states(states: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the states [B, P, D] of several layers as one tensor, each at a mean square of 1."""
    return torch.cat([functional.rms_norm(state, state.shape[-1:]) for state in states], -1)
