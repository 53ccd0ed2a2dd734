"""Reader: everything between a prompt's token ids and its gates."""

import torch
from torch import nn
from transformers import PreTrainedModel

from loragen.method.binder import Binder
from loragen.method.pair_reader import PairReader
from loragen.method.router import Router, RouterSpec


class Reader(nn.Module):
    """Cloud model, meta embeddings, router, and a binder and a pair reader if any.

    The pair reader reads the states of `edge`, the frozen decoder that recipes are for.
    """

    def __init__(
        self, cloud: PreTrainedModel, spec: RouterSpec, edge: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        self.cloud = cloud
        self.meta_LD = nn.Parameter(torch.randn(spec.layers, spec.cloud_hidden) * 0.5)
        self.router = Router(spec)
        self.binder: Binder | None = None
        if spec.binds:
            states = (cloud.config.num_hidden_layers + 1) * spec.cloud_hidden
            gates = spec.layers * spec.gate_vectors * spec.experts
            self.binder = Binder(states, gates)
        self.edge = edge
        self.pairs: PairReader | None = None
        if spec.pair_experts:
            assert edge is not None, "pairs are read from the edge model"
            hidden = int(edge.config.hidden_size)
            self.pairs = PairReader(
                states=(int(edge.config.num_hidden_layers) + 1) * hidden,
                vectors=2 * hidden,
                gates=spec.layers * spec.linears * spec.pair_experts,
            )

    def forward(self, ids_BP: torch.Tensor, used_BP: torch.Tensor) -> torch.Tensor:
        """Return gates [B, L, M, N] of prompts padded on the right; `used_BP` marks real tokens."""
        gates_BLMN = self.text_gates(ids_BP, used_BP)
        if self.pairs is not None:
            gates_BLMN = torch.cat([gates_BLMN, self.pair_gates(ids_BP, used_BP)], -1)
        return gates_BLMN

    def text_gates(self, ids_BP: torch.Tensor, used_BP: torch.Tensor) -> torch.Tensor:
        """Return gates [B, L, M, N] of the router's experts.

        The meta tokens stand directly behind each prompt's last token, wherever the padding ends.
        """
        B, P = ids_BP.shape
        L = self.meta_LD.shape[0]
        embedded = self.cloud.get_input_embeddings()(ids_BP)
        lengths = used_BP.sum(1, keepdim=True)
        output = self.cloud(
            inputs_embeds=torch.cat([embedded, self.meta_LD.expand(B, -1, -1)], 1),
            attention_mask=torch.cat([used_BP.long(), used_BP.new_ones(B, L).long()], 1),
            position_ids=torch.cat(
                [torch.arange(P).expand(B, P), lengths + torch.arange(L)], dim=1
            ),
            use_cache=False,
            output_hidden_states=self.binder is not None,
        )
        bound_BG = None
        if self.binder is not None:
            bound_BG = self.binder(tuple(s[:, :P] for s in output.hidden_states), used_BP)
        gates_BLMN: torch.Tensor = self.router(output.last_hidden_state[:, P:], bound_BG)
        return gates_BLMN

    def pair_gates(self, ids_BP: torch.Tensor, used_BP: torch.Tensor) -> torch.Tensor:
        """Return gates [B, L, M, N] of the pair experts."""
        assert self.pairs is not None
        return self.unflatten_pairs(self.pairs(self.edge_states(ids_BP, used_BP), used_BP))

    def unflatten_pairs(self, gates_BG: torch.Tensor) -> torch.Tensor:
        """Return a pair reader's gates as [B, L, M, N]."""
        spec = self.router.spec
        gates_BLMN: torch.Tensor = gates_BG.unflatten(
            -1, (spec.layers, spec.linears, spec.pair_experts)
        )
        return gates_BLMN

    @torch.no_grad()
    def edge_states(self, ids_BP: torch.Tensor, used_BP: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the edge model's states [B, P, D] of all layers at a prompt's tokens."""
        assert self.edge is not None
        output = self.edge(
            input_ids=ids_BP,
            attention_mask=used_BP.long(),
            use_cache=False,
            output_hidden_states=True,
        )
        states: tuple[torch.Tensor, ...] = output.hidden_states
        return states

    def own_tensors(self) -> dict[str, torch.Tensor]:
        """Return all that is no model's, as saved in `generator.safetensors`."""
        state: dict[str, torch.Tensor] = self.state_dict()
        return {name: t for name, t in state.items() if not name.startswith(("cloud.", "edge."))}
